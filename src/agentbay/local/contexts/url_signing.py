"""Presigned URLs: each lets its holder GET or PUT one file of one context."""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import time
from urllib.parse import quote

from agentbay.local.contexts.errors import signature_mismatch
from agentbay.local.ids import sign

URL_LIFETIME_SECONDS = 3600
_MAC_BYTES = 32


def make_url(
    base: str, secret: bytes, method: str, context_id: str, key: str, lifetime: int = URL_LIFETIME_SECONDS
) -> str:
    """Make a presigned URL for a method, PUT or GET.

    It ends with the name of the file, where some clients look for one.
    """
    fields = [method, context_id, key, int(time.time()) + lifetime]
    body = json.dumps(fields, separators=(",", ":")).encode()
    token = base64.urlsafe_b64encode(_sign(secret, body) + body).decode().rstrip("=")
    name = quote(key.rpartition("/")[2].encode("utf-8", "surrogateescape"), safe="")
    return f"{base}/objects/{token}/{name}"


def verify_token(token: str, secret: bytes, method: str) -> tuple[str, str]:
    """Verify the HMAC of a token, and return its context id and key.

    Raises:
        AuthenticationError: The signature is wrong, the token is for another method, or it has expired.
    """
    try:
        raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise signature_mismatch("The signature of this URL is not one of this runtime's.") from None
    mac, body = raw[:_MAC_BYTES], raw[_MAC_BYTES:]
    if not hmac.compare_digest(mac, _sign(secret, body)):
        raise signature_mismatch("The signature of this URL is not one of this runtime's.")
    # Parsed only after the HMAC was verified, so a stranger's bytes never reach the parser.
    allowed, context_id, key, expires = json.loads(body)
    if method != allowed and (method, allowed) != ("HEAD", "GET"):
        raise signature_mismatch(f"This URL is for {allowed}.")
    if time.time() >= expires:
        raise signature_mismatch("This URL has expired.")
    return context_id, key


def _sign(secret: bytes, body: bytes) -> bytes:
    # The prefix keeps these signatures apart from other kinds under one secret (domain separation).
    return sign(secret, b"object:" + body)
