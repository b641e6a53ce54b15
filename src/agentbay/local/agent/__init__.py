"""Agents of sessions, which carry out tasks with a model that the user provides."""
