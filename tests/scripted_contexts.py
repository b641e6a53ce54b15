"""A context service in memory with presigned URLs, over real sockets.

Attributes of `ContextService` are the faults it has; a test sets those it wants.
"""

# methods are named as the actions that they answer

from __future__ import annotations

import hashlib
import json
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from tests import http_server
from tests.http_server import Handler, Server

SECRET = "sig-SECRET-0123456789"
_BLOCK = 1 << 16


class Refusal(Exception):
    """An answer instead of data, with HTTP 200 if `plain`."""

    def __init__(self, code: str, message: str, *, plain: bool = False) -> None:
        super().__init__(message)
        self.code, self.message, self.plain = code, message, plain


class Stored:
    """A stored file: its bytes, or only size and checksum if it is big."""

    def __init__(self, data: bytes | None, size: int, md5: str) -> None:
        self.data, self.size, self.md5 = data, size, md5

    @classmethod
    def of(cls, data: bytes) -> Stored:
        return cls(data, len(data), hashlib.md5(data).hexdigest())


class ContextService:
    """The service.

    Attributes:
        contexts: By id: name and state.
        files: By context id and path.
        tasks: Items of GetContextInfo, each with the statuses that it shows one look after the other.
        after_sync: Statuses of the task that SyncContext and BindContexts begin.
        task_error: Error message of tasks that fail.
        refuse: Actions that are refused, each with its refusal.
        lose_uploads, cut_uploads: Acknowledge files that are not kept, or not whole.
        no_checksum: Give no checksum for what was sent.
        forbidden: Refuse presigned URLs as if they had ended.
        redirects: How often a presigned URL sends on before it answers; `redirect_to` is where to, if not to itself.
        short: How many downloads end in the midst.
        broken: How many presigned requests end with HTTP 503.
        stall: Seconds for which a download stands still.
        clearing: How many looks at a context see it being cleared.
        empty_get: Answer GetContext for what does not exist with success and no data.
    """

    def __init__(self) -> None:
        self.url = ""
        self.contexts: dict[str, dict[str, str]] = {}
        self.files: dict[tuple[str, str], Stored] = {}
        self.tasks: list[dict[str, Any]] = []
        self.bindings: list[dict[str, str]] = []
        self.after_sync = ["Running", "Success"]
        self.task_error = ""
        self.session_status = "RUNNING"
        self.refuse: dict[str, Refusal] = {}
        self.lose_uploads = self.cut_uploads = self.no_checksum = self.forbidden = self.empty_get = False
        self.redirects = self.short = self.broken = self.clearing = 0
        self.redirect_to = ""
        self.stall = 0.0
        self.calls: list[tuple[str, dict[str, str]]] = []
        self.transfers: list[tuple[str, str, dict[str, str]]] = []
        self._numbers = count(1)

    def answer(self, action: str, fields: dict[str, str]) -> dict[str, Any]:
        self.calls.append((action, fields))
        if action in self.refuse:
            raise self.refuse[action]
        found = getattr(self, action)(fields)
        return found if isinstance(found, dict) and "Data" in found else {"Data": found} if found is not None else {}

    def names(self) -> list[str]:
        """Return the actions called so far."""
        return [action for action, _ in self.calls]

    def add(self, name: str) -> str:
        """Add a context."""
        context_id = f"SdkCtx-{next(self._numbers):04d}"
        self.contexts[context_id] = {"name": name, "state": "available"}
        return context_id

    def _data(self, context_id: str) -> dict[str, Any]:
        context = self.contexts[context_id]
        state = context["state"]
        if state == "clearing":
            self.clearing -= 1
            if self.clearing <= 0:
                context["state"] = state = "available"
        return {"Id": context_id, "Name": context["name"], "State": state, "CreateTime": "2025-05-29T12:00:00Z"}

    def GetContext(self, fields: dict[str, str]) -> Any:
        context_id = fields.get("ContextId") or next(
            (key for key, value in self.contexts.items() if value["name"] == fields.get("Name")), ""
        )
        if context_id not in self.contexts and fields["AllowCreate"] == "True":
            context_id = self.add(fields["Name"])
        if context_id not in self.contexts:
            if self.empty_get:
                return None
            raise Refusal("ContextNotFound", "no such context")
        return self._data(context_id)

    def ListContexts(self, fields: dict[str, str]) -> Any:
        return self._page([self._data(key) for key in self.contexts], fields)

    def _page(self, items: list[Any], fields: dict[str, str]) -> dict[str, Any]:
        start, size = int(fields.get("NextToken") or 0), int(fields.get("MaxResults") or 10)
        token = str(start + size) if start + size < len(items) else ""
        return {
            "Data": items[start : start + size],
            "NextToken": token,
            "MaxResults": size,
            "TotalCount": len(items),
            "Count": len(items),
        }

    def ModifyContext(self, fields: dict[str, str]) -> None:
        self._known(fields["Id"])["name"] = fields["Name"]

    def DeleteContext(self, fields: dict[str, str]) -> None:
        self._known(fields["Id"])
        del self.contexts[fields["Id"]]

    def ClearContext(self, fields: dict[str, str]) -> None:
        self._known(fields["Id"])["state"] = "clearing"

    def _known(self, context_id: str) -> dict[str, str]:
        if context_id not in self.contexts:
            raise Refusal("ContextNotFound", "no such context")
        return self.contexts[context_id]

    def _presigned(self, fields: dict[str, str]) -> dict[str, Any]:
        self._known(fields["ContextId"])
        path = quote(fields["FilePath"].lstrip("/"))
        return {"Url": f"{self.url}/store/{fields['ContextId']}/{path}?Signature={SECRET}", "ExpireTime": 3600}

    GetContextFileUploadUrl = GetContextFileDownloadUrl = _presigned

    def DeleteContextFile(self, fields: dict[str, str]) -> None:
        if self.files.pop((fields["ContextId"], fields["FilePath"]), None) is None:
            raise Refusal("FileNotFound", "no such file", plain=True)

    def DescribeContextFiles(self, fields: dict[str, str]) -> Any:
        self._known(fields["ContextId"])
        folder = fields["ParentFolderPath"].rstrip("/") + "/"
        entries: dict[str, dict[str, Any]] = {}
        for (context_id, path), stored in self.files.items():
            if context_id == fields["ContextId"] and path.startswith(folder):
                name, below, _ = path.removeprefix(folder).partition("/")
                kind = {"FileType": "FOLDER"} if below else {"FileType": "FILE", "Size": stored.size}
                entries[name] = {"FileId": name, "FileName": name, "FilePath": f"key/{name}", "Status": "ready", **kind}
        items = [entries[name] for name in sorted(entries)]
        if "PageNumber" in fields:
            size = int(fields["PageSize"])
            start = (int(fields["PageNumber"]) - 1) * size
            return {"Data": items[start : start + size], "Count": len(items)}
        return self._page(items, fields)

    def GetContextInfo(self, fields: dict[str, str]) -> Any:
        wanted = {"contextId": "ContextId", "path": "Path", "taskType": "TaskType"}
        shown = []
        for task in self.tasks:
            if any(fields.get(field) and fields[field] != task[key] for key, field in wanted.items()):
                continue
            status = task["statuses"].pop(0) if len(task["statuses"]) > 1 else task["statuses"][0]
            failed = {"errorMessage": self.task_error} if status == "Failed" else {}
            shown.append({**task, "status": status, "startTime": 1, **failed, "statuses": None})
        return {
            "ContextStatus": json.dumps([{"type": "data", "data": json.dumps(shown)}, {"type": "log", "data": "x"}])
        }

    def task(self, context_id: str, path: str, kind: str, *statuses: str) -> None:
        """Begin a task, which replaces the previous one."""
        key = {"contextId": context_id, "path": path, "taskType": kind}
        self.tasks = [task for task in self.tasks if not key.items() <= task.items()]
        self.tasks.append({**key, "errorMessage": "", "statuses": list(statuses)})

    def SyncContext(self, fields: dict[str, str]) -> None:
        mode = fields.get("Mode", "upload")
        if "ContextId" in fields:
            self.task(fields["ContextId"], fields.get("Path", ""), mode, *self.after_sync)
        else:
            for item in self.bindings:
                self.task(item["ContextId"], item["Path"], mode, *self.after_sync)

    def BindContexts(self, fields: dict[str, str]) -> None:
        for item in json.loads(fields["PersistenceDataList"]):
            if any(item["Path"] == bound["Path"] for bound in self.bindings):
                raise Refusal("PathAlreadyBound", f"{item['Path']} is bound", plain=True)
            name = self._known(item["ContextId"])["name"]
            policy = item.get("Policy", "")
            self.bindings.append(
                {"ContextId": item["ContextId"], "ContextName": name, "Path": item["Path"], "Policy": policy}
            )
            if item.get("Type") != "mount" and self.after_sync:
                self.task(item["ContextId"], item["Path"], "download", *self.after_sync)

    def DescribeSessionContexts(self, _: dict[str, str]) -> Any:
        return self.bindings

    def GetAndLoadInternalContext(self, fields: dict[str, str]) -> Any:
        assert fields["ContextTypes.1"] == "file_transfer"
        if "SdkCtx-transfer" not in self.contexts:
            self.contexts["SdkCtx-transfer"] = {"name": "transfer", "state": "available"}
        path = {"ContextPath": "/tmp/file-transfer", "ContextType": "file_transfer"}
        return [{"ContextId": "", **path}, {"ContextId": "SdkCtx-transfer", **path}]

    def CreateMcpSession(self, _: dict[str, str]) -> Any:
        return {"SessionId": "session-1", "Success": True}

    def DeleteSessionAsync(self, _: dict[str, str]) -> None:
        self.tasks = []
        self.session_status = "FINISH"

    def GetSessionDetail(self, _: dict[str, str]) -> Any:
        return {"Status": self.session_status}


class _Handler(Handler):
    service: ContextService

    def do_POST(self) -> None:
        body = self.body().decode()
        fields = dict(parse_qsl(f"{urlsplit(self.path).query}&{body}", keep_blank_values=True))
        envelope: dict[str, Any] = {"RequestId": f"R-{secrets.token_hex(4)}", "Code": "ok", "Success": True}
        status = 200
        try:
            envelope |= self.service.answer(fields["Action"], fields)
        except Refusal as refusal:
            status = 200 if refusal.plain else 400
            envelope |= {"Success": False, "Code": refusal.code, "Message": refusal.message}
        self.answer(status, json.dumps(envelope).encode())

    def do_PUT(self) -> None:
        length = int(self.headers["content-length"])
        kept, checksum, left = bytearray(), hashlib.md5(), length
        while left:
            block = self.rfile.read(min(_BLOCK, left))
            if not block:
                return
            left -= len(block)
            checksum.update(block)
            if length < 1 << 22:
                kept += block
        service = self.service
        if not self._may():
            return
        md5 = checksum.hexdigest()
        if service.cut_uploads:
            kept = kept[: length // 2]
            service.files[self._key()] = Stored.of(bytes(kept))
        elif not service.lose_uploads:
            service.files[self._key()] = Stored(bytes(kept) if length < 1 << 22 else None, length, md5)
        unproven = service.no_checksum or service.cut_uploads or service.lose_uploads
        self.answer(200, b"", {} if unproven else {"ETag": f'"{md5.upper()}"'})

    def do_GET(self) -> None:
        service = self.service
        if not self._may():
            return
        stored = service.files.get(self._key())
        if stored is None:
            self.answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
        elif "range" in self.headers and stored.size:
            self.answer(206, b"x", {"Content-Range": f"bytes 0-0/{stored.size}"})
        elif "range" in self.headers:
            self.answer(416, b"", {"Content-Range": "bytes */0"})
        else:
            self._give(stored)

    def _give(self, stored: Stored) -> None:
        self.send_response(200)
        self.send_header("content-length", str(stored.size))
        self.end_headers()
        left = stored.size
        if self.service.short:
            self.service.short -= 1
            left, self.close_connection = left // 2, True
        if self.service.stall:
            self.wfile.write((stored.data or b"x")[:1])
            time.sleep(self.service.stall)
            self.close_connection = True
            return
        if stored.data is not None:
            self.wfile.write(stored.data[:left])
            return
        for start in range(0, left, _BLOCK):
            self.wfile.write(bytes(min(_BLOCK, left - start)))

    def _may(self) -> bool:
        service, parts = self.service, urlsplit(self.path)
        service.transfers.append((self.command, parts.path, {k.lower(): v for k, v in self.headers.items()}))
        if service.redirects:
            service.redirects -= 1
            self.answer(307, b"", {"Location": service.redirect_to or self.path})
        elif service.broken:
            service.broken -= 1
            self.answer(503, b"")
        elif service.forbidden or dict(parse_qsl(parts.query)).get("Signature") != SECRET:
            self.answer(403, f"<Error><Code>AccessDenied</Code><Url>{self.path}</Url></Error>".encode())
        else:
            return True
        return False

    def _key(self) -> tuple[str, str]:
        context_id, _, path = urlsplit(self.path).path.removeprefix("/store/").partition("/")
        return context_id, f"/{unquote(path)}"


@contextmanager
def serving() -> Iterator[ContextService]:
    """Serve on a free loopback port until the block ends."""
    service = ContextService()
    with http_server.serving(Server(type("Handler", (_Handler,), {"service": service}))) as server:
        service.url = f"http://{server.host}"
        yield service
