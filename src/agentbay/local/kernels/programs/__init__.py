"""The kernel programs, which run inside sandboxes and import nothing of this package."""
