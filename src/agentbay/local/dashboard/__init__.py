"""The dashboard: web pages on which a person watches and manages sessions."""
