"""The desktop of a session: a display, a window manager, and what drives them."""
