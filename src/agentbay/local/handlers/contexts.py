"""Actions on contexts, and on the files in them."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

from agentbay._wire import context_store as wire
from agentbay.local.api_errors import invalid_request
from agentbay.local.contexts import keys
from agentbay.local.contexts.entry import Entry
from agentbay.local.contexts.errors import context_not_found, file_not_found
from agentbay.local.contexts.session_contexts import resolve_session_path
from agentbay.local.contexts.store import ContextRecord
from agentbay.local.contexts.url_signing import URL_LIFETIME_SECONDS, make_url
from agentbay.local.handlers.handler_tables import action_handler
from agentbay.local.handlers.paging import (
    ListPage,
    check_page_size,
    read_numeric_page_token,
    read_page_token,
    write_page_token,
)
from agentbay.local.runtime import Runtime

_DEFAULT_FILES_PER_PAGE, _MAX_FILES_PER_PAGE = 50, 1000  # entries
_MAX_NAME_CHARACTERS = 255


@action_handler(wire.GetContext)
async def get(runtime: Runtime, action: wire.GetContext) -> wire.ContextData:
    """Find a context by id or name, which must match if both are given."""
    contexts, name = runtime.context_service, (action.name or "").strip()
    if action.context_id:
        context = await contexts.run_in_thread(contexts.store.find, action.context_id)
        # A context without a name is internal to a session, and clients cannot manage it.
        if not context.name or (name and name != context.name):
            raise context_not_found(name or context.id)
        return _describe(context)
    if not name:
        raise invalid_request("Name: is required, or ContextId.", "MissingParameter")
    if not action.allow_create:
        return _describe(await contexts.run_in_thread(contexts.store.find_by_name, name))
    return _describe(await contexts.run_in_thread(contexts.store.get_or_create, _check_name(name)))


def _check_name(name: str) -> str:
    if len(name) > _MAX_NAME_CHARACTERS or not name.isprintable():
        raise invalid_request(
            f"Name: must be up to {_MAX_NAME_CHARACTERS} printable characters.", "InvalidParameter.Name"
        )
    return name


def _describe(context: ContextRecord) -> wire.ContextData:
    return wire.ContextData(
        id=context.id,
        name=context.name,
        state=context.state,
        create_time=format_time(context.created),
        last_used_time=format_time(context.used),
        os_type="linux",
    )


def format_time(seconds: float) -> str:
    """Format a Unix time as ISO 8601 in UTC, with whole seconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


@action_handler(wire.ListContexts)
async def list_page(runtime: Runtime, action: wire.ListContexts) -> ListPage:
    """List contexts by creation."""
    size = check_page_size(action.max_results)
    number = read_numeric_page_token(action.next_token)
    found, total = await runtime.context_service.run_in_thread(
        runtime.context_service.store.page, number, size + 1, action.session_id or None
    )
    token = write_page_token(str(found[size - 1].number)) if len(found) > size else ""
    return ListPage([_describe(context) for context in found[:size]], token, size, total)


@action_handler(wire.ModifyContext)
async def rename(runtime: Runtime, action: wire.ModifyContext) -> None:
    name = action.name.strip()
    if not name:
        raise invalid_request("Name: is required.", "MissingParameter")
    await runtime.context_service.run_in_thread(runtime.context_service.store.rename, action.id, _check_name(name))


@action_handler(wire.DeleteContext)
async def delete(runtime: Runtime, action: wire.DeleteContext) -> None:
    """Delete a context, even if a session uses it: later uploads to it fail."""
    await runtime.context_service.run_in_thread(runtime.context_service.store.delete, action.id)


@action_handler(wire.ClearContext)
async def clear(runtime: Runtime, action: wire.ClearContext) -> None:
    contexts = runtime.context_service
    await contexts.run_in_thread(contexts.store.mark_clearing, action.id)
    contexts.clear_in_background(action.id)


@action_handler(wire.DescribeContextFiles)
async def list_files(runtime: Runtime, action: wire.DescribeContextFiles) -> ListPage:
    """List one directory by name, in pages by number or token."""
    contexts, context_id = runtime.context_service, action.context_id
    by_token = action.max_results is not None or action.next_token is not None
    size = (action.max_results if by_token else action.page_size) or _DEFAULT_FILES_PER_PAGE
    number = action.page_number or 1
    if not 1 <= size <= _MAX_FILES_PER_PAGE or number < 1:
        raise invalid_request(f"A page has 1 to {_MAX_FILES_PER_PAGE} entries, and a number from 1.")
    folder = _parse_file_path(runtime, context_id, action.parent_folder_path or "/")
    entries = await contexts.run_in_thread(_children, runtime, context_id, folder)
    total = len(entries)
    if by_token:
        after = read_page_token(action.next_token)
        entries = [entry for entry in entries if entry.path > after] if after else entries
    else:
        entries = entries[size * (number - 1) :]
    token = write_page_token(entries[size - 1].path) if len(entries) > size else ""
    return ListPage(
        [_describe_file(context_id, folder, entry) for entry in entries[:size]], token, size, total, "Count"
    )


def _children(runtime: Runtime, context_id: str, folder: str) -> list[Entry]:
    store = runtime.context_service.store
    with store.open_reader(context_id) as view:
        return view.children(store.resolve_key(context_id, folder))


def _describe_file(context_id: str, folder: str, entry: Entry) -> wire.ContextFileData:
    path = keys.join(folder, entry.path)
    moment = format_time(entry.mtime_ns / 1e9)
    return wire.ContextFileData(
        file_id=hashlib.sha256(f"{context_id}:{path}".encode("utf-8", "surrogateescape")).hexdigest()[:32],
        file_name=entry.path,
        file_path=path,
        file_type="FOLDER" if entry.kind == "dir" else "FILE",
        gmt_create=moment,
        gmt_modified=moment,
        size=0 if entry.kind == "dir" else entry.size,
        status="ready",
    )


def _parse_file_path(runtime: Runtime, context_id: str, path: str) -> str:
    # For a session's own context, clients give the paths that file tools take.
    return (
        resolve_session_path(path)
        if context_id in runtime.context_service.session_by_internal_context
        else keys.normalize(path, "FilePath")
    )


@action_handler(wire.DeleteContextFile)
async def delete_file(runtime: Runtime, action: wire.DeleteContextFile) -> None:
    key = _parse_file_path(runtime, action.context_id, action.file_path)
    await runtime.context_service.run_in_thread(_delete, runtime, action.context_id, key)


def _delete(runtime: Runtime, context_id: str, key: str) -> None:
    store = runtime.context_service.store
    if key == "/" or not store.delete_path(context_id, store.resolve_key(context_id, key)):
        raise file_not_found(key)


@action_handler(wire.GetContextFileUploadUrl)
async def upload_url(runtime: Runtime, action: wire.GetContextFileUploadUrl) -> wire.PresignedUrl:
    return await _presign(runtime, "PUT", action.context_id, action.file_path)


@action_handler(wire.GetContextFileDownloadUrl)
async def download_url(runtime: Runtime, action: wire.GetContextFileDownloadUrl) -> wire.PresignedUrl:
    """Sign a URL for a file, which need not exist, as object stores do."""
    return await _presign(runtime, "GET", action.context_id, action.file_path)


async def _presign(runtime: Runtime, method: str, context_id: str, path: str) -> wire.PresignedUrl:
    contexts = runtime.context_service
    await contexts.run_in_thread(contexts.store.find, context_id)
    key = _parse_file_path(runtime, context_id, path)
    if key == "/" or path.endswith("/"):
        raise invalid_request("FilePath: must name a file.", "InvalidParameter.Path")
    where = await contexts.run_in_thread(contexts.store.resolve_key, context_id, key)
    url = make_url(runtime.address.http_url, contexts.url_signing_key, method, context_id, where)
    return wire.PresignedUrl(url=url, expire_time=URL_LIFETIME_SECONDS)
