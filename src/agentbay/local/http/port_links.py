"""Find the link that a request uses, and check that it may.

A link has two forms. As a path on the host of the runtime, it works for every client. As a name of its own below
`localhost`, it gives a browser an origin of its own, with its own cookies and storage: Chrome and Firefox are
redirected there. A document that a browser loads by the path all the same is sandboxed by its Content-Security-Policy,
since its origin would be that of the dashboard.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from agentbay._lazy_attrs import define
from agentbay.errors import AgentBayError, NotFoundError, PermissionDeniedError
from agentbay.local.http.asgi import Request, Response, Scope
from agentbay.local.http.origin_check import LOOPBACK_NAMES, OriginCheck, parse_host_header
from agentbay.local.runtime import Runtime
from agentbay.local.sessions.port_tokens import (
    is_host_label,
    make_host_label,
    resolve_host_label,
    resolve_port_token,
)
from agentbay.local.sessions.session import Session

_OPAQUE_ORIGIN = "null"  # of sandboxed documents
_LINK_PATH = re.compile(r"(/(?:request_ai/([^/]+)/path|websocket_ai/([^/]+)))(/.*)?", re.DOTALL)
_HOST_SUFFIX = ".localhost"
# These browsers take any name below "localhost" for the loopback. Others ask the system, which may not know it.
_BROWSERS_THAT_RESOLVE_LOCALHOST = ("Chrome/", "Firefox/")


@define(frozen=True, slots=False)
class ProxyTarget:
    """Where a request through a link goes.

    Attributes:
        path_and_query: What the program in the session receives.
        prefix: The part of the link's path before that path; "" for a link with a host name of its own.
        base_url: The URL of the link, without a slash at its end.
        cors_origin: The origin of a script that may read the answers, or "".
    """

    session: Session
    port: int
    path_and_query: str
    prefix: str
    base_url: str
    cors_origin: str = ""

    @property
    def host_header(self) -> bytes:
        """The Host header that the program gets."""
        return b"127.0.0.1:%d" % self.port

    @property
    def has_own_origin(self) -> bool:
        """Whether browsers isolate this link's documents from the runtime's."""
        return not self.prefix


class PortLinks:
    """The links of one runtime."""

    def __init__(self, runtime: Runtime, origin_check: OriginCheck) -> None:
        self._runtime, self._origin_check = runtime, origin_check

    @staticmethod
    def is_link(request: Request) -> bool:
        """Return whether a request has the form of a link, valid or not."""
        return _host_label(request.headers) != "" or _LINK_PATH.fullmatch(request.path) is not None

    def resolve(self, request: Request, scope: Scope) -> ProxyTarget:
        """Return the target of a request.

        Raises:
            AgentBayError: The link is forged, has expired, or may not be used in this way.
        """
        host, scheme = request.headers.get("host", ""), str(scope["scheme"]).replace("ws", "http")
        # The raw path, since decoding and encoding it again could change which file it names.
        path, query = scope["raw_path"].decode("latin-1"), scope["query_string"].decode("latin-1")
        try:
            if label := _host_label(request.headers):
                session, port = resolve_host_label(self._runtime.sessions, label)
                prefix = ""
            elif match := _LINK_PATH.fullmatch(request.path):
                session, port = resolve_port_token(self._runtime.sessions, match[2] or match[3])
                prefix = match[1]
            else:
                raise ValueError("not a link")
            if not path.startswith(prefix):
                raise ValueError("its prefix is encoded, and would be passed on with the token")
        except ValueError as error:
            raise _no_such_link() from error
        path = path.removeprefix(prefix) or "/"
        base_url, origin = f"{scheme}://{host}{prefix}", request.headers.get("origin", "")
        is_trusted = origin != base_url and (origin == _OPAQUE_ORIGIN or self._is_origin_of(session, origin))
        path_and_query = f"{path}?{query}" if query else path
        target = ProxyTarget(session, port, path_and_query, prefix, base_url, origin if is_trusted else "")
        self._check(request, target)
        request.mark_authenticated()
        return target

    def _check(self, request: Request, target: ProxyTarget) -> None:
        # Opaque origins and other links of the session need the token in the URL, so CSRF is impossible: a browser adds
        # no cookie or header that would authorise such a request.
        # A link's host name is itself a valid token here, which a page that uses DNS rebinding cannot know.
        headers = {**request.headers, "host": "localhost"} if target.has_own_origin else request.headers
        allowed_origins = {target.base_url, target.cors_origin}
        if reason := self._origin_check.rejection_reason(headers, request.local_address, allowed_origins):
            raise PermissionDeniedError(reason, 403, code="Forbidden")
        # Documents behind a path have an opaque origin, so a same-origin request comes from the dashboard, which must
        # not load a script from a link.
        is_navigation = request.headers.get("sec-fetch-mode") == "navigate"
        if not target.has_own_origin and not is_navigation and request.headers.get("sec-fetch-site") == "same-origin":
            raise PermissionDeniedError("A link cannot be a part of the dashboard.", 403, code="Forbidden")

    def _is_origin_of(self, session: Session, origin: str) -> bool:
        label = (urlsplit(origin).hostname or "").removesuffix(_HOST_SUFFIX)
        try:
            return is_host_label(label) and resolve_host_label(self._runtime.sessions, label)[0] is session
        except (AgentBayError, ValueError):
            # The label names a session that is gone, or is none: then it is not this one's origin.
            return False

    def answer_browser(self, request: Request, target: ProxyTarget) -> Response | None:
        """Answer a CORS preflight request, or redirect a navigation to the link's own origin.

        Other requests give None.
        """
        if request.method == "OPTIONS" and target.cors_origin and "access-control-request-method" in request.headers:
            return Response(200, b"", "text/plain", headers=_preflight_headers(request, target))
        return self._redirect_to_own_origin(request, target)

    def _redirect_to_own_origin(self, request: Request, target: ProxyTarget) -> Response | None:
        host, port = parse_host_header(request.headers.get("host", ""))
        if not (
            self._runtime.address.owns_localhost
            and not target.has_own_origin
            and host in LOOPBACK_NAMES
            and request.method in ("GET", "HEAD")
            and request.headers.get("sec-fetch-mode") == "navigate"
            and any(name in request.headers.get("user-agent", "") for name in _BROWSERS_THAT_RESOLVE_LOCALHOST)
        ):
            return None
        label = make_host_label(target.session, target.port)
        authority = f"{label}{_HOST_SUFFIX}:{port}" if port else f"{label}{_HOST_SUFFIX}"
        location = f"http://{authority}{target.path_and_query}".encode("latin-1")
        return Response(307, b"", "text/plain", headers=((b"location", location),))


def _host_label(headers: Mapping[str, str]) -> str:
    """Return the token in the Host header, or "" if there is none."""
    name, _ = parse_host_header(headers.get("host", ""))
    label = name.removesuffix(_HOST_SUFFIX)
    return label if label != name and is_host_label(label) else ""


def _preflight_headers(request: Request, target: ProxyTarget) -> tuple[tuple[bytes, bytes], ...]:
    names = request.headers.get("access-control-request-headers", "").encode("latin-1")
    return (
        (b"access-control-allow-origin", target.cors_origin.encode("latin-1")),
        (b"access-control-allow-methods", request.headers["access-control-request-method"].encode("latin-1")),
        *(((b"access-control-allow-headers", names),) if names else ()),
    )


def _no_such_link() -> NotFoundError:
    return NotFoundError("There is no such link.", 404, code="InvalidLink.NotFound")
