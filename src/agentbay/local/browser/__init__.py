"""The browser of a session: which program it is, how it starts, and when it has crashed."""
