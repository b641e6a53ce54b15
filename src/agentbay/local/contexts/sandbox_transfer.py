"""One transfer between a context and a path of a sandbox.

A program in the sandbox sends or receives the files through a pipe, and a thread of the service is at its other end.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from agentbay._lazy_attrs import define, field
from agentbay.local.contexts import keys
from agentbay.local.contexts.baseline import Baseline
from agentbay.local.contexts.binding_spec import BindingSpec
from agentbay.local.contexts.service import ContextService
from agentbay.local.sandbox.service.futures import retrieve_exception
from agentbay.local.sandbox.service.manager import FileOperationFailed, Sandbox, SandboxError
from agentbay.local.sandbox.service.pipe_reader import enlarge_pipe
from agentbay.local.sandbox.shared import ipc
from agentbay.local.sandbox.shared.fd_io import closing_fd
from agentbay.local.sandbox.shared.file_protocol import ReceiveTree, RemoveIncomplete, SendTree
from agentbay.local.sandbox.shared.tree_stream import TruncatedStream

if TYPE_CHECKING:
    from agentbay.local.contexts.download import Download
    from agentbay.local.contexts.upload import Upload

_TIMEOUT_SECONDS = 1800.0  # without the time that the session is paused
_MAX_NAMED_ERRORS = 10  # in the message of a failed transfer


@define(slots=False)
class Binding:
    """A context at a path of the session.

    Attributes:
        bound_at: Seconds since 1970.
    """

    spec: BindingSpec
    bound_at: float
    baseline: Baseline = field(factory=Baseline)
    lock: asyncio.Lock = field(factory=asyncio.Lock)  # serialises its transfers


async def upload_changes(service: ContextService, sandbox: Sandbox, binding: Binding, only: str) -> None:
    """Copy what has changed in the sandbox to the context.

    Args:
        only: A path below that of the binding, "" for all.

    Raises:
        OSError: It took too long, or some files could not be copied; names them.
        SandboxError: The sandbox ended.
    """
    spec = binding.spec
    upload = await service.run_in_thread(_begin_upload, service.store, spec, binding.baseline, only)
    request = SendTree(spec.path, only, spec.white_lists)
    known = ipc.make_memfd(json.dumps(upload.known_files()).encode())
    incoming, outgoing = os.pipe2(os.O_CLOEXEC)
    enlarge_pipe(incoming)
    kills = sandbox.watchdog.kill_counts()
    try:
        sending = sandbox.start_file_operation(request, known, outgoing)
    except BaseException:
        os.close(incoming)
        raise
    receiving = asyncio.ensure_future(service.run_in_thread(_read_and_close, upload, incoming))
    try:
        await _wait_for_receiver(sandbox, receiving)
    finally:
        sending.cancel()
    try:
        binding.baseline = await receiving
    except TruncatedStream as error:
        reason = sandbox.watchdog.kill_message(kills).decode().strip()
        raise OSError(
            reason or "It was killed before it had sent all, by a program of the session or its end."
        ) from error
    _raise_for_errors(spec, upload.unreadable)


async def download_changes(service: ContextService, sandbox: Sandbox, binding: Binding, only: str) -> None:
    """Copy what has changed in the context to the sandbox.

    Arguments and errors are those of `upload_changes`.
    """
    spec = binding.spec
    download = await service.run_in_thread(_begin_download, service.store, spec, only)
    # Measured beforehand, as for moves: what exceeds the session's disk is refused rather than killed.
    room = await sandbox.watchdog.measure_room()
    incoming, outgoing = os.pipe2(os.O_CLOEXEC)
    enlarge_pipe(incoming)
    # a single file that a client sends must not replace a directory with all it holds
    request = ReceiveTree(spec.path, secrets.token_hex(8), replace_anything=not only, room=room)
    kills = sandbox.watchdog.kill_counts()
    receiving = asyncio.ensure_future(sandbox.run_file_operation_with_input(request, incoming))
    sending = asyncio.ensure_future(service.run_in_thread(_write_and_close, download, outgoing))
    try:
        await _wait_for_receiver(sandbox, receiving)
    finally:
        receiving.cancel()
        receiving.add_done_callback(retrieve_exception)
    await sending  # if it fails, its error is the one to report
    try:
        received = await receiving
    except SandboxError as error:
        # The sandbox has trouble already; what is left ends with it.
        with suppress(SandboxError, FileOperationFailed):
            await sandbox.run_file_operation(RemoveIncomplete(spec.path, request.token))
        if reason := sandbox.watchdog.kill_message(kills):
            raise OSError(reason.decode().strip()) from error
        raise
    if only and not download.sent_anything:
        raise FileNotFoundError(f"The context has no file {keys.join(spec.path, only)}.")
    binding.baseline = download.baseline(received, binding.baseline)
    refused = {error["path"]: error["why"] for error in received.errors}
    _raise_for_errors(spec, refused | download.errors)


async def _wait_for_receiver(sandbox: Sandbox, receiving: asyncio.Future[Any]) -> None:
    """Wait for the receiver of a transfer, but not for ever.

    Code of the session can stop the program at the other end of the pipe.
    """
    if not await sandbox.clock.ends_within(receiving, _TIMEOUT_SECONDS):
        raise OSError(f"The transfer took longer than {_TIMEOUT_SECONDS:.0f} seconds.")


def _begin_upload(*args: Any) -> Upload:
    from agentbay.local.contexts.upload import Upload  # most sessions have no contexts

    return Upload(*args)


def _begin_download(*args: Any) -> Download:
    from agentbay.local.contexts.download import Download

    return Download(*args)


def _read_and_close(upload: Upload, fd: int) -> Baseline:
    with closing_fd(fd):
        return upload.run(fd)


def _write_and_close(download: Download, fd: int) -> None:
    try:
        download.run(fd)
    except BrokenPipeError:  # the receiver in the session reports why it stopped reading
        return
    finally:
        os.close(fd)


def _raise_for_errors(spec: BindingSpec, errors: Mapping[str, str]) -> None:
    """Raise OSError if a transfer left out any files, with their names."""
    if errors:
        named = [f"{keys.join(spec.path, path)}: {why}" for path, why in sorted(errors.items())]
        more = [f"and {len(named) - _MAX_NAMED_ERRORS} more"] if len(named) > _MAX_NAMED_ERRORS else []
        raise OSError("; ".join(named[:_MAX_NAMED_ERRORS] + more))
