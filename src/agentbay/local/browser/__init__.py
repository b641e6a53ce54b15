"""The browser of a session: its program, start, and crashes."""
