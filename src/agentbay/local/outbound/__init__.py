"""Transfers between object storage and a session, which the service makes."""
