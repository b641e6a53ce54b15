"""Ids and secrets: made so that nobody can guess them, compared so that no time tells them."""

from __future__ import annotations

import hmac
import secrets
import string

_ALPHABET = string.digits + string.ascii_lowercase


def make_id(prefix: str, length: int) -> str:
    """Make an id that nobody can guess, in the service's form."""
    return prefix + "".join(secrets.choice(_ALPHABET) for _ in range(length))


def is_same_secret(given: str, secret: bytes) -> bool:
    """Compare in constant time, so that the time of an answer tells nothing of the secret."""
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), secret)
