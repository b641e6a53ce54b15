"""Digests, by which images name their parts."""

from __future__ import annotations

import hashlib

from agentbay.local.images.errors import DamagedImage


def sha256_digest(content: bytes) -> str:
    """Return the digest of some bytes."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def digest_digits(digest: object) -> str:
    """Return the hexadecimal digits of a digest.

    Raises:
        DamagedImage: It is malformed, or of another algorithm than SHA-256.
    """
    digits = digest.removeprefix("sha256:") if isinstance(digest, str) else ""
    if digest != f"sha256:{digits}" or len(digits) != 64 or not set(digits) <= set("0123456789abcdef"):
        raise DamagedImage(f"The image names a digest that is not SHA-256: {digest!r:.80}.")
    return digits
