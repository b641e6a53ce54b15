"""Contexts: what outlives sessions. `store` keeps them, `desk` is what handlers and sessions talk to."""
