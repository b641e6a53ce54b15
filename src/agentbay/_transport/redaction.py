"""Remove secrets from texts, since tools may quote the URL they got."""

from __future__ import annotations

import re
from urllib.parse import unquote

_MASK = "***"
# Repetitions are bounded where a search could begin anew at every character: without bounds, its time would grow with
# the square of the length of a text, which a session's code may have chosen.
_URL_CREDENTIALS = re.compile(
    r"(://)("
    r"[^\s/]+"  # user and password, up to the last @ before the path
    r"|[^\s/:@]+:(?!\d+(?:[/\s'\"]|$))\S{0,1000}"  # a password with a slash in it, which a URL must not have
    r")@"
)
_URL_QUERY = re.compile(r"(://[^\s?'\"]{1,2000}\?)([^\s'\"]+)")
_AUTHORIZATION_HEADER = re.compile(r"(?i)\b((?:proxy-)?authorization:\s*(?:(?:basic|bearer|token)\s+)?)([^\s'\"]+)")
_MIN_SECRET_CHARACTERS = 6  # shorter ones occur in too many words


def redact(text: str, *secrets: str) -> str:
    """Replace secrets by `***`.

    That is user names, passwords and queries of URLs, authorization headers, and the given secrets.
    """
    text = _URL_CREDENTIALS.sub(rf"\1{_MASK}@", text)
    for pattern in (_URL_QUERY, _AUTHORIZATION_HEADER):
        text = pattern.sub(rf"\1{_MASK}", text)
    # The longest first: one secret may contain another, and the rest of it would stay readable.
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= _MIN_SECRET_CHARACTERS:
            text = text.replace(secret, _MASK)
    return text


def find_secrets(text: str) -> list[str]:
    """Return the secrets in a text's URLs and headers, also percent-decoded."""
    users = [user for _, user in _URL_CREDENTIALS.findall(text)]
    found = [user.partition(":")[2] if ":" in user else user for user in users]
    found += [pair.partition("=")[2] for _, query in _URL_QUERY.findall(text) for pair in query.split("&")]
    found += [value for _, value in _AUTHORIZATION_HEADER.findall(text)]
    return [*found, *map(unquote, found)]
