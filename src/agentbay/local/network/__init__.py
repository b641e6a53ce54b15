"""The network of a sandbox, and its egress proxy."""
