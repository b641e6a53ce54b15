"""Actions on contexts, and on the files in them."""

from __future__ import annotations

import base64
import binascii
import hashlib
from datetime import UTC, datetime

from agentbay._wire.context_store import (
    ClearContext,
    ContextFileFound,
    ContextFound,
    DeleteContext,
    DeleteContextFile,
    DescribeContextFiles,
    GetContext,
    GetContextFileDownloadUrl,
    GetContextFileUploadUrl,
    ListContexts,
    ModifyContext,
    PresignedUrl,
)
from agentbay.errors import NotFoundError
from agentbay.local.contexts import keys
from agentbay.local.contexts.bindings import in_session
from agentbay.local.contexts.contents import Entry
from agentbay.local.contexts.presigned import LIFETIME, make_url
from agentbay.local.contexts.refusals import no_context, no_file
from agentbay.local.contexts.store import Context
from agentbay.local.dispatch import answers
from agentbay.local.envelope import Page
from agentbay.local.refusals import invalid
from agentbay.local.runtime import Runtime
from agentbay.local.session import Session

_PAGE, _LARGEST_PAGE = 10, 100
_FILES, _MOST_FILES = 50, 1000
_LONGEST_NAME = 255


async def names_of(runtime: Runtime, session: Session) -> dict[str, str]:
    """Return the names of the contexts that a session has, by their ids; "" for one that does not exist."""
    found: dict[str, str] = {}
    for binding in session.contexts.bindings if session.contexts else ():
        context_id = binding.item.context_id
        try:
            found[context_id] = (await runtime.contexts.run(runtime.contexts.store.find, context_id)).name
        except NotFoundError:
            found[context_id] = ""
    return found


@answers(GetContext)
async def get(runtime: Runtime, action: GetContext) -> ContextFound:
    """Find by id if there is one, else by name; both given must belong together."""
    desk, name = runtime.contexts, (action.name or "").strip()
    if action.context_id:
        context = await desk.run(desk.store.find, action.context_id)
        if not context.name or (name and name != context.name):
            raise no_context(name or context.id)
        return _describe(context)
    if not name:
        raise invalid("Name: is required, or ContextId.", "MissingParameter")
    if not action.allow_create:
        return _describe(await desk.run(desk.store.named, name))
    return _describe(await desk.run(desk.store.obtain, _checked(name)))


def _checked(name: str) -> str:
    if len(name) > _LONGEST_NAME or not name.isprintable():
        raise invalid(f"Name: must be up to {_LONGEST_NAME} printable characters.", "InvalidParameter.Name")
    return name


def _describe(context: Context) -> ContextFound:
    return ContextFound(
        id=context.id,
        name=context.name,
        state=context.state,
        create_time=when(context.created),
        last_used_time=when(context.used),
        os_type="linux",
    )


def when(seconds: float) -> str:
    """Write a time as the wire has it."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


@answers(ListContexts)
async def list_page(runtime: Runtime, action: ListContexts) -> Page:
    """List by creation; the token names the last one shown."""
    size = action.max_results
    if not 1 <= size <= _LARGEST_PAGE:
        raise invalid(f"MaxResults: must be 1 to {_LARGEST_PAGE}, not {size}.")
    after = _read_token(action.next_token)
    try:
        number = int(after or 0)
    except ValueError:
        raise _bad_token() from None
    found, total = await runtime.contexts.run(runtime.contexts.store.page, number, size + 1, action.session_id or None)
    token = _write_token(str(found[size - 1].number)) if len(found) > size else ""
    return Page([_describe(context) for context in found[:size]], token, size, total)


def _write_token(after: str) -> str:
    return base64.urlsafe_b64encode(b"after:" + after.encode("utf-8", "surrogateescape")).decode()


def _read_token(token: str | None) -> str:
    if not token:
        return ""
    try:
        text = base64.urlsafe_b64decode(token).decode("utf-8", "surrogateescape")
    except (binascii.Error, ValueError):
        raise _bad_token() from None
    if not text.startswith("after:"):
        raise _bad_token()
    return text.removeprefix("after:")


def _bad_token() -> Exception:
    return invalid("NextToken: is not one that this runtime has given.")


@answers(ModifyContext)
async def rename(runtime: Runtime, action: ModifyContext) -> None:
    name = action.name.strip()
    if not name:
        raise invalid("Name: is required.", "MissingParameter")
    await runtime.contexts.run(runtime.contexts.store.rename, action.id, _checked(name))


@answers(DeleteContext)
async def delete(runtime: Runtime, action: DeleteContext) -> None:
    """Delete, though a session may have it: what that would upload later fails, and its mounts end with it."""
    await runtime.contexts.run(runtime.contexts.store.delete, action.id)


@answers(ClearContext)
async def clear(runtime: Runtime, action: ClearContext) -> None:
    desk = runtime.contexts
    await desk.run(desk.store.begin_clear, action.id)
    desk.clear(action.id)


@answers(DescribeContextFiles)
async def list_files(runtime: Runtime, action: DescribeContextFiles) -> Page:
    """List one level, by name: a page by its number, or what follows the name in the token."""
    desk, context_id = runtime.contexts, action.context_id
    by_token = action.max_results is not None or action.next_token is not None
    size = (action.max_results if by_token else action.page_size) or _FILES
    number = action.page_number or 1
    if not 1 <= size <= _MOST_FILES or number < 1:
        raise invalid(f"A page has 1 to {_MOST_FILES} entries, and a number from 1.")
    folder = _key(runtime, context_id, action.parent_folder_path or "/")
    entries = await desk.run(_children, runtime, context_id, folder)
    total = len(entries)
    if by_token:
        after = _read_token(action.next_token)
        entries = [entry for entry in entries if entry.path > after] if after else entries
    else:
        entries = entries[size * (number - 1) :]
    token = _write_token(entries[size - 1].path) if len(entries) > size else ""
    return Page([_describe_file(context_id, folder, entry) for entry in entries[:size]], token, size, total, "Count")


def _children(runtime: Runtime, context_id: str, folder: str) -> list[Entry]:
    store = runtime.contexts.store
    with store.reading(context_id) as view:
        return view.children(store.locate(context_id, folder))


def _describe_file(context_id: str, folder: str, entry: Entry) -> ContextFileFound:
    path = keys.join(folder, entry.path)
    moment = when(entry.mtime_ns / 1e9)
    return ContextFileFound(
        file_id=hashlib.sha256(f"{context_id}:{path}".encode("utf-8", "surrogateescape")).hexdigest()[:32],
        file_name=entry.path,
        file_path=path,
        file_type="FOLDER" if entry.kind == "dir" else "FILE",
        gmt_create=moment,
        gmt_modified=moment,
        size=0 if entry.kind == "dir" else entry.size,
        status="ready",
    )


def _key(runtime: Runtime, context_id: str, path: str) -> str:
    """Read a path; to a session's own context one may give those that file tools take."""
    return in_session(path) if context_id in runtime.contexts.internals else keys.normal(path, "FilePath")


@answers(DeleteContextFile)
async def delete_file(runtime: Runtime, action: DeleteContextFile) -> None:
    key = _key(runtime, action.context_id, action.file_path)
    await runtime.contexts.run(_delete, runtime, action.context_id, key)


def _delete(runtime: Runtime, context_id: str, key: str) -> None:
    store = runtime.contexts.store
    if key == "/" or not store.remove(context_id, store.locate(context_id, key)):
        raise no_file(key)


@answers(GetContextFileUploadUrl)
async def upload_url(runtime: Runtime, action: GetContextFileUploadUrl) -> PresignedUrl:
    return await _presign(runtime, "PUT", action.context_id, action.file_path)


@answers(GetContextFileDownloadUrl)
async def download_url(runtime: Runtime, action: GetContextFileDownloadUrl) -> PresignedUrl:
    """Sign, whether there is such a file or not, as object stores do: who asks may be about to upload it."""
    return await _presign(runtime, "GET", action.context_id, action.file_path)


async def _presign(runtime: Runtime, method: str, context_id: str, path: str) -> PresignedUrl:
    desk = runtime.contexts
    await desk.run(desk.store.find, context_id)
    key = _key(runtime, context_id, path)
    if key == "/" or path.endswith("/"):
        raise invalid("FilePath: must name a file.", "InvalidParameter.Path")
    where = await desk.run(desk.store.locate, context_id, key)
    url = make_url(runtime.place.http, desk.secret, method, context_id, where)
    return PresignedUrl(url=url, expire_time=LIFETIME)
