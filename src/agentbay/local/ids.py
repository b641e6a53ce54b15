"""Ids and signatures that nobody can guess or forge."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import string

_ALPHABET = string.digits + string.ascii_lowercase


def make_id(prefix: str, length: int) -> str:
    """Make an id that nobody can guess, in the service's form."""
    number, digits = secrets.randbelow(len(_ALPHABET) ** length), []
    for _ in range(length):
        number, digit = divmod(number, len(_ALPHABET))
        digits.append(_ALPHABET[digit])
    return prefix + "".join(digits)


def is_same_secret(given: str, secret: bytes) -> bool:
    """Compare in constant time, so that timing tells nothing about the secret."""
    # Encoded first, since compare_digest raises TypeError for a text that is not ASCII, and clients can send one.
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), secret)


def sign(secret: bytes, message: bytes) -> bytes:
    """Return the HMAC-SHA256 of a message.

    Messages of different kinds that are signed with one secret must differ in their form.
    """
    return hmac.digest(secret, message, hashlib.sha256)
