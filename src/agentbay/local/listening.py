"""The listening socket: a loopback port, a unix socket, or, with TLS, any address."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

from agentbay._lazy_attrs import define
from agentbay.errors import ConfigurationError
from agentbay.local.options import WILDCARD_HOSTS, Options

_BACKLOG = 1024  # connections that wait to be accepted
_CONTAINER_MARKS = ("/run/.containerenv", "/.dockerenv")  # files that podman and docker make in each container
_NETWORK_DEVICES = "/sys/class/net"
# Links have names such as x.localhost, for which browsers try both loopback addresses. Each is mapped to the other.
_LOOPBACK_TWINS = {"127.0.0.1": ("::1", socket.AF_INET6), "::1": ("127.0.0.1", socket.AF_INET)}


@define(frozen=True, slots=False)
class ServerAddress:
    """A listening socket, and the URLs that lead to it.

    Attributes:
        host: Name or address, as in a URL.
        port: 0 for a unix socket at `socket_path`, whose URLs have the host `localhost`.
        uses_tls: It speaks TLS.
        host_names: Names that clients may use, beside the loopback's and the IP address they connect to.
        twin_listener: Listens on the same port of the other loopback address.
        owns_localhost: No other program can answer a browser that asks for a name below `localhost` on this port.
    """

    listener: socket.socket
    host: str
    port: int = 0
    uses_tls: bool = False
    socket_path: str = ""
    host_names: frozenset[str] = frozenset()
    twin_listener: socket.socket | None = None
    owns_localhost: bool = False

    @property
    def listeners(self) -> list[socket.socket]:
        """All listening sockets."""
        return [self.listener] if self.twin_listener is None else [self.listener, self.twin_listener]

    @property
    def authority(self) -> str:
        """Host and port."""
        return f"{self.host}:{self.port}" if self.port else self.host

    @property
    def http_url(self) -> str:
        """The URL, without a slash at its end."""
        return f"http{'s' * self.uses_tls}://{self.authority}"

    @property
    def ws_url(self) -> str:
        """The URL of its WebSockets."""
        return f"ws{'s' * self.uses_tls}://{self.authority}"

    def __str__(self) -> str:
        return f"unix:{self.socket_path}" if self.socket_path else self.http_url


@contextlib.contextmanager
def listen(options: Options) -> Iterator[ServerAddress]:
    """Listen at the address that the options name, until the end of the block.

    Raises:
        ConfigurationError: The address or the certificate cannot be used.
    """
    if options.socket is not None:
        with _listen_on_unix_socket(Path(options.socket).expanduser().absolute()) as address:
            yield address
        return
    if options.tls_cert and options.tls_key:
        _check_certificate(options.tls_cert, options.tls_key)
    if options.published:
        _require_container_network()
    bind_host = WILDCARD_HOSTS[0] if options.published else options.host
    try:
        family, _, _, _, sockaddr = socket.getaddrinfo(bind_host, options.port, type=socket.SOCK_STREAM)[0]
        dual_stack = options.host == "::" and socket.has_dualstack_ipv6()
        listener = socket.create_server(sockaddr[:2], family=family, backlog=_BACKLOG, dualstack_ipv6=dual_stack)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigurationError(f"Port {options.port} of {options.host} cannot be used: {reason}.") from error
    names = _host_names(options)
    with contextlib.ExitStack() as stack:
        stack.enter_context(listener)
        port, uses_tls = listener.getsockname()[1], options.tls_cert is not None
        twin, owns_localhost = _listen_on_twin(listener)
        if twin is not None:
            stack.enter_context(twin)
        yield ServerAddress(
            listener,
            names[0],
            port,
            uses_tls=uses_tls,
            host_names=frozenset(names),
            twin_listener=twin,
            owns_localhost=owns_localhost and not uses_tls,
        )


def _require_container_network() -> None:
    """Refuse `--published` outside of a container with a network of its own."""
    hint = "Leave --published out; to serve other machines, give --host, --tls-cert and --tls-key."
    if not any(map(os.path.exists, _CONTAINER_MARKS)):
        raise ConfigurationError("--published is for containers of docker and podman, and this is none.", hint=hint)
    # Network devices of a container are virtual, so they have no "device" entry.
    devices = [path.parent.name for path in Path(_NETWORK_DEVICES).glob("*/device")]
    if devices:
        raise ConfigurationError(
            f"--published takes a network of the container's own, and this one has that of its machine ({devices[0]}).",
            hint="Start the container without --network host, or leave --published out.",
        )


def _listen_on_twin(listener: socket.socket) -> tuple[socket.socket | None, bool]:
    """Listen on the other loopback address, too, and return whether both are ours.

    Browsers try both for a name below `localhost`: another user's program on the other one would see the secret names
    of links.
    """
    host, port = listener.getsockname()[:2]
    if host not in _LOOPBACK_TWINS:
        return None, False
    twin_host, family = _LOOPBACK_TWINS[host]
    try:
        return socket.create_server((twin_host, port), family=family, backlog=_BACKLOG), True
    except OSError as error:
        return None, error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)  # nobody else can listen there either


def _host_names(options: Options) -> list[str]:
    # The first one is what the runtime's URLs have.
    if options.host in WILDCARD_HOSTS:
        return [*options.server_name, socket.gethostname().lower()]
    return [f"[{options.host}]" if ":" in options.host else options.host.lower(), *options.server_name]


@contextlib.contextmanager
def _listen_on_unix_socket(path: Path) -> Iterator[ServerAddress]:
    """Listen on a socket for this user only, and replace a stale one."""
    listener = socket.socket(socket.AF_UNIX)
    with listener:
        try:
            if _is_stale_socket(path):
                path.unlink()
            # A chmod after bind() would come too late: in between, another user could connect.
            mask = os.umask(0o177)
            try:
                listener.bind(str(path))
            finally:
                os.umask(mask)
            listener.listen(_BACKLOG)
        except OSError as error:
            raise ConfigurationError(f"--socket {path} cannot be used: {_describe_refusal(path, error)}.") from error
        try:
            yield ServerAddress(listener, "localhost", socket_path=str(path))
        finally:
            path.unlink(missing_ok=True)


def _describe_refusal(path: Path, error: OSError) -> str:
    if error.errno != errno.EADDRINUSE:
        return error.strerror or str(error)
    # bind() says the same of any file that has the name.
    if path.is_socket():
        return "somebody listens there"
    return f"it is a {'directory' if path.is_dir() else 'file'}, and a name that is free is wanted"


def _is_stale_socket(path: Path) -> bool:
    if not path.is_socket():
        return False
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            # Nobody accepts there: a runtime that was killed has left its socket.
            return True
    return False


def _check_certificate(certificate: str, key: str) -> None:
    for name, file in (("cert", certificate), ("key", key)):
        try:
            Path(file).read_bytes()
        except OSError as error:
            raise ConfigurationError(f"--tls-{name} {file} cannot be read: {error.strerror}.") from error
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password=_no_password)
    except (ssl.SSLError, ValueError) as error:
        raise ConfigurationError(
            f"--tls-cert {certificate} and --tls-key {key} are no certificate and its key: {error}.",
            hint="Both must be PEM, the certificate with its chain, the key without a password.",
        ) from error


def _no_password() -> str:
    # Without this callback, OpenSSL would ask for the password on the terminal.
    raise ValueError("the key has a password")
