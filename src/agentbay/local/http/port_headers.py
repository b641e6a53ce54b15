"""The headers that pass through a link, in either direction.

Code in a session is not trusted. It must not learn credentials and cookies of other services on this host, nor the
token of its own link, and must not act on the whole origin that the path of a link shares with the dashboard.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from agentbay.local.headers import Headers, drop_hop_by_hop
from agentbay.local.http.asgi import Scope
from agentbay.local.http.port_links import ProxyTarget

# uvicorn answers Expect itself. X-Forwarded-* of a client could claim an origin that it does not have.
_REWRITTEN_REQUEST_HEADERS = frozenset(
    b"host origin referer cookie expect content-length x-access-token x-forwarded-host x-forwarded-proto "
    b"x-forwarded-prefix".split()
)
# These act on the whole host or beyond the document that they come with.
_DROPPED_RESPONSE_HEADERS = frozenset(
    b"alt-svc clear-site-data expect-ct nel origin-agent-cluster origin-trial public-key-pins report-to "
    b"reporting-endpoints service-worker-allowed strict-transport-security".split()
)
# These act on the origin that a path of the runtime's host shares with the dashboard.
_DROPPED_FROM_PATH = frozenset(
    b"access-control-allow-credentials access-control-allow-origin cross-origin-embedder-policy "
    b"cross-origin-opener-policy refresh".split()
)
# allow-same-origin is missing on purpose: the document gets an opaque origin, apart from the dashboard's.
_SANDBOX = (
    b"sandbox allow-downloads allow-forms allow-modals allow-orientation-lock allow-pointer-lock allow-popups "
    b"allow-presentation allow-scripts"
)
_STATUSES_WITHOUT_BODY = (204, 304)


def request_headers(target: ProxyTarget, scope: Scope) -> Headers:
    """Return the end-to-end headers of a request, as the program gets them."""
    received: Headers = scope["headers"]
    headers = drop_hop_by_hop(received, dropped=_REWRITTEN_REQUEST_HEADERS)
    headers += [(b"host", target.host_header), (b"x-forwarded-proto", scope["scheme"].encode())]
    if not target.has_own_origin:  # otherwise the host name holds the token
        headers += [(b"x-forwarded-host", value) for name, value in received if name == b"host"]
    if any(name == b"origin" for name, _ in received):
        # Programs compare it with their Host header, to refuse cross-site requests.
        headers.append((b"origin", b"http://" + target.host_header))
    if cookies := _own_cookies(target, received):
        headers.append((b"cookie", cookies))
    headers += [(name, _own_url(target, value)) for name, value in received if name == b"referer"]
    return [(name, value) for name, value in headers if name != b"referer" or value]


def _own_cookies(target: ProxyTarget, headers: Headers) -> bytes:
    pairs = [pair.strip() for name, value in headers if name == b"cookie" for pair in value.split(b";")]
    if not target.has_own_origin:
        # A browser sends all cookies of 127.0.0.1, whatever the port of the service that has set them.
        prefix = _cookie_prefix(target)
        pairs = [pair.removeprefix(prefix) for pair in pairs if pair.startswith(prefix)]
    return b"; ".join(pair for pair in pairs if pair)


def _own_url(target: ProxyTarget, url: bytes) -> bytes:
    """Return this link's URL as the program knows it, or b"" for others."""
    base = target.base_url.encode("latin-1")
    path = url.removeprefix(base)
    return b"http://" + target.host_header + path if url.startswith(base) and path[:1] in (b"", b"/", b"?") else b""


def response_headers(target: ProxyTarget, status: int, received: Iterable[tuple[bytes, bytes]]) -> Headers:
    """Return the end-to-end headers of an answer, as the client gets them."""
    dropped = _DROPPED_RESPONSE_HEADERS if target.has_own_origin else _DROPPED_RESPONSE_HEADERS | _DROPPED_FROM_PATH
    if status in _STATUSES_WITHOUT_BODY:
        dropped |= {b"content-length"}  # clients would wait for the body
    headers: Headers = []
    for name, value in drop_hop_by_hop(((name.lower(), value) for name, value in received), dropped=dropped):
        if name == b"location":
            headers.append((name, _rewrite_location(target, value)))
        elif name == b"set-cookie":
            headers += [(name, cookie) for cookie in (_rewrite_cookie(target, value),) if cookie]
        else:
            headers.append((name, value))
    if not target.has_own_origin:
        # Browsers enforce every policy that an answer has, so one of the program's own cannot loosen this one.
        headers.append((b"content-security-policy", _SANDBOX))
    if target.cors_origin:  # a sandboxed document that loads its own modules and data, or another link of the session
        headers = [(name, value) for name, value in headers if name != b"access-control-allow-origin"]
        headers.append((b"access-control-allow-origin", target.cors_origin.encode("latin-1")))
    return headers


def _rewrite_location(target: ProxyTarget, location: bytes) -> bytes:
    # A program does not know the path of its link: without the prefix, a redirect would lead out of the link.
    path = location.removeprefix(b"http://" + target.host_header)
    # A URL that begins with // names another host.
    return target.prefix.encode("ascii") + path if path.startswith(b"/") and not path.startswith(b"//") else location


def _rewrite_cookie(target: ProxyTarget, cookie: bytes) -> bytes:
    """Return a cookie confined to this link, or b"" without a name."""
    pair, *attributes = cookie.split(b";")
    # Browsers send a nameless cookie as its bare value, which could pass for a cookie of the dashboard.
    if b"=" not in pair or not pair.partition(b"=")[0].strip():
        return b""
    kept = [part for part in attributes if part.partition(b"=")[0].strip().lower() != b"domain"]
    if not target.has_own_origin:
        pair = _cookie_prefix(target) + pair.strip()
        kept = [part for part in kept if part.partition(b"=")[0].strip().lower() != b"path"]
        kept.append(b" Path=" + target.prefix.encode("ascii"))
    return b";".join([pair, *kept])


def _cookie_prefix(target: ProxyTarget) -> bytes:
    # A hash, because the name of a cookie must not contain the slashes of the prefix.
    return b"link-" + hashlib.sha256(target.prefix.encode("ascii")).hexdigest()[:12].encode() + b"-"
