"""URL paths of the dashboard that the command line must know too."""

from __future__ import annotations

LOGIN_PATH = "/view/login"  # where a browser logs in; a ticket behind a "#" there logs it in once
TICKETS_PATH = "/view/tickets"  # gives a ticket in exchange for the key
