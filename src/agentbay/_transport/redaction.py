"""Texts without what nobody else may read: what git and the storage tools say may quote the URL they were given."""

from __future__ import annotations

import re
from urllib.parse import unquote

_MASK = "***"
_URL_CREDENTIALS = re.compile(
    r"(://)("
    r"[^\s/]+"  # up to the last @ before the path
    r"|[^\s/:@]+:(?!\d+(?:[/\s'\"]|$))\S*"  # a password with a slash in it, which is not how a URL is written
    r")@"
)
_URL_QUERY = re.compile(r"(://[^\s?'\"]+\?)([^\s'\"]+)")
_AUTHORIZATION_HEADER = re.compile(r"(?i)\b((?:proxy-)?authorization:\s*(?:(?:basic|bearer|token)\s+)?)([^\s'\"]+)")
_MIN_SECRET_CHARACTERS = 6  # a shorter one stands in too many words


def redact(text: str, *secrets: str) -> str:
    """Hide user names, passwords and queries of URLs, what an authorization header holds, and these secrets."""
    text = _URL_CREDENTIALS.sub(rf"\1{_MASK}@", text)
    for pattern in (_URL_QUERY, _AUTHORIZATION_HEADER):
        text = pattern.sub(rf"\1{_MASK}", text)
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= _MIN_SECRET_CHARACTERS:
            text = text.replace(secret, _MASK)
    return text


def find_secrets(text: str) -> list[str]:
    """What is secret in the URLs and headers of a text, as it stands there and as it is meant."""
    users = [user for _, user in _URL_CREDENTIALS.findall(text)]
    found = [user.partition(":")[2] if ":" in user else user for user in users]
    found += [pair.partition("=")[2] for _, query in _URL_QUERY.findall(text) for pair in query.split("&")]
    found += [value for _, value in _AUTHORIZATION_HEADER.findall(text)]
    return [*found, *map(unquote, found)]
