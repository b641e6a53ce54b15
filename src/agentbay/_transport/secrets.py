"""Texts without what nobody else may read: what git and the storage tools say may quote the URL they were given."""

from __future__ import annotations

import re
from urllib.parse import unquote

_HIDDEN = "***"
_USER = re.compile(
    r"(://)("
    r"[^\s/]+"  # up to the last @ before the path
    r"|[^\s/:@]+:(?!\d+(?:[/\s'\"]|$))\S*"  # a password with a slash in it, which is not how a URL is written
    r")@"
)
_QUERY = re.compile(r"(://[^\s?'\"]+\?)([^\s'\"]+)")
_HEADER = re.compile(r"(?i)\b((?:proxy-)?authorization:\s*(?:(?:basic|bearer|token)\s+)?)([^\s'\"]+)")
_SHORTEST = 6  # a shorter one stands in too many words


def masked(text: str, *secrets: str) -> str:
    """Hide user names, passwords and queries of URLs, what an authorization header holds, and these secrets."""
    text = _USER.sub(rf"\1{_HIDDEN}@", text)
    for pattern in (_QUERY, _HEADER):
        text = pattern.sub(rf"\1{_HIDDEN}", text)
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= _SHORTEST:
            text = text.replace(secret, _HIDDEN)
    return text


def passwords(text: str) -> list[str]:
    """What is secret in the URLs and headers of a text, as it stands there and as it is meant."""
    users = [user for _, user in _USER.findall(text)]
    found = [user.partition(":")[2] if ":" in user else user for user in users]
    found += [pair.partition("=")[2] for _, query in _QUERY.findall(text) for pair in query.split("&")]
    found += [value for _, value in _HEADER.findall(text)]
    return [*found, *map(unquote, found)]
