"""The asynchronous flavour, from which `build_sync.py` generates `_sync`."""
