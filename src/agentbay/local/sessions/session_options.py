"""Options of new sessions: directory, hosts, writable directories and entry point."""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING

from agentbay._lazy_attrs import define
from agentbay._wire.sessions import SessionOptions
from agentbay.local.api_errors import invalid_request
from agentbay.local.sandbox.service.manager import FileOperationFailed, Sandbox
from agentbay.local.sandbox.service.writable_directories import WritableDirectory, choose_writable
from agentbay.local.sandbox.shared.file_protocol import MakeDirectory
from agentbay.local.sandbox.shared.sandbox_config import CLIENT_HOME, resolve_path

if TYPE_CHECKING:
    from agentbay.local.network.egress_policy import EgressRule
    from agentbay.local.network.provider import NetworkProvider

_MAX_PATH_CHARACTERS = 4096


@define(frozen=True, slots=False)
class SandboxOptions:
    """The options of a session that its sandbox and its proxy have to know.

    Attributes:
        directory: Where commands and relative paths start, absolute; "" is home.
        writable: Further directories that may be written.
        allowed: The hosts that it may reach; None is all that the runtime allows.
        entrypoint: What starts with it; None is the entry point of its image.
    """

    directory: str = ""
    writable: tuple[WritableDirectory, ...] = ()
    allowed: tuple[EgressRule, ...] | None = None
    entrypoint: tuple[str, ...] | None = None


async def read_options(
    asked: SessionOptions, networks: NetworkProvider, *, isolated: bool, policy_id: str | None
) -> SandboxOptions:
    """Read the options of a new session.

    Args:
        isolated: Whether sandboxes have namespaces of their own.
        policy_id: The network that the session asks for, or None.

    Raises:
        InvalidRequestError: An option cannot be given; names it.
    """
    directory = asked.cwd or ""
    if "\0" in directory or len(directory) > _MAX_PATH_CHARACTERS:
        raise invalid_request(f"cwd: {directory!r:.80} is no path.", "InvalidParameter.Cwd")
    if directory:
        directory = posixpath.normpath(resolve_path(directory, CLIENT_HOME, CLIENT_HOME))
    try:
        writable = choose_writable(asked.writable or ())
    except ValueError as error:
        raise invalid_request(f"writable: {error}.", "InvalidParameter.Writable") from error
    if writable and not isolated:
        raise invalid_request(
            f"writable: {writable[0].path:.80} cannot be given to a session of this runtime, which has no namespaces; "
            "choose directories below the home.",
            "WritableNotSupported.Local",
        )
    allowed = None
    if asked.network is not None:
        allowed = await networks.narrow(asked.network, policy_id)
    entrypoint = None if asked.entrypoint is None else tuple(asked.entrypoint)
    if entrypoint and (not entrypoint[0] or any("\0" in word for word in entrypoint)):
        raise invalid_request(
            f"entrypoint: {asked.entrypoint!r:.80} is no program with its arguments.", "InvalidParameter.Entrypoint"
        )
    return SandboxOptions(directory, tuple(writable), allowed, entrypoint)


async def make_directory(sandbox: Sandbox, directory: str) -> None:
    """Make the directory in which a session starts, if it is missing.

    Raises:
        InvalidRequestError: It cannot be made there.
    """
    try:
        await sandbox.run_file_operation(MakeDirectory(directory))
    except FileOperationFailed as error:
        raise invalid_request(
            f"cwd: {directory:.200} cannot be made: {error.strerror}; choose one below the home, or make its place "
            "writable by writable=.",
            "InvalidParameter.Cwd",
        ) from error
