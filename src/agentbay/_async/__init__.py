"""The hand-written flavour. `build_sync.py` writes `_sync` from it."""
