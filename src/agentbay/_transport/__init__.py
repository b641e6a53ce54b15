"""The transport layer without I/O: requests, the meaning of answers, and retries."""
