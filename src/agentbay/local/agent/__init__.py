"""Agents of sessions: tasks in words, done with a model of the user's own."""
