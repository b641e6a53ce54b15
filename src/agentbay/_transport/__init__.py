"""The one transport layer, without I/O: what to send, what an answer means, whether and when to send again."""
