"""Actions on contexts and their sessions, by the bare wire."""

from __future__ import annotations

import json
import os
import time
from typing import Any

from tests.local.raw import Wire
from tests.local.traces import PATIENCE


def create_context(wire: Wire) -> str:
    return str(wire.data("GetContext", Name=f"ctx-{os.urandom(6).hex()}", AllowCreate="True")["Id"])


def upload_url(wire: Wire, context: str, path: str) -> str:
    return str(wire.data("GetContextFileUploadUrl", ContextId=context, FilePath=path)["Url"])


def put_file(wire: Wire, context: str, path: str, content: bytes) -> None:
    answer = wire.http.put(upload_url(wire, context, path), content=content)
    assert answer.status_code == 200, answer.text


def get_file(wire: Wire, context: str, path: str) -> bytes | None:
    """Return the content of a file of a context, or None."""
    url = wire.data("GetContextFileDownloadUrl", ContextId=context, FilePath=path)["Url"]
    answer = wire.http.get(url)
    return answer.content if answer.status_code == 200 else None


def context_files(wire: Wire, context: str, path: str) -> dict[str, bytes]:
    """Return the contents of the files below a path of a context."""
    found: dict[str, bytes] = {}
    for entry in wire.data(
        "DescribeContextFiles", ContextId=context, ParentFolderPath=path, PageNumber=1, PageSize=1000
    ):
        if entry["FileType"] == "FOLDER":
            below = context_files(wire, context, entry["FilePath"])
            found |= {f"{entry['FileName']}/{name}": content for name, content in below.items()}
        else:
            found[entry["FileName"]] = get_file(wire, context, entry["FilePath"]) or b""
    return found


def sync_item(context: str, path: str, **policy: Any) -> dict[str, str]:
    """Return an item of PersistenceDataList, with the policy as the wire has it."""
    return {"ContextId": context, "Path": path, **({"Policy": json.dumps(policy)} if policy else {})}


def mount_item(context: str, path: str, source: str = "", mode: str = "readWrite") -> dict[str, Any]:
    config = {"AccessMode": mode, "StorageMode": "standard", "SourcePath": source}
    return {"ContextId": context, "Path": path, "Type": "mount", "MountConfig": config}


def transfer_statuses(wire: Wire, session: str, **fields: str) -> list[dict[str, Any]]:
    status = json.loads(wire.data("GetContextInfo", SessionId=session, **fields)["ContextStatus"])
    return [one for part in status for one in json.loads(part["data"])]


def wait_for_transfers(wire: Wire, session: str, seconds: float = 2 * PATIENCE, **fields: str) -> list[dict[str, Any]]:
    """Wait until the transfers have ended, and return their statuses."""
    deadline = time.monotonic() + seconds
    while True:
        found = transfer_statuses(wire, session, **fields)
        if all(one["status"] != "Running" for one in found):
            return found
        assert time.monotonic() < deadline, found
        time.sleep(0.02)


def sync_and_check(wire: Wire, session: str, **fields: str) -> None:
    """Synchronise, and check that it succeeded."""
    wire.data("SyncContext", SessionId=session, **fields)
    wanted = {name: value for name, value in fields.items() if name != "Mode"}
    for one in wait_for_transfers(wire, session, 1800, **wanted):
        assert one["status"] == "Success", one


def delete_and_wait(wire: Wire, session: str) -> None:
    """Delete a session, and wait for its end and so for its final uploads."""
    wire.data("DeleteSessionAsync", SessionId=session)
    deadline = time.monotonic() + 600
    while wire.status(session) != "FINISH":
        assert time.monotonic() < deadline
        time.sleep(0.02)


def session_files(wire: Wire, session: str, path: str) -> dict[str, str]:
    """Return the contents of the files below a path of a session."""
    program = (
        "import json,os,sys;top=sys.argv[1];"
        "print(json.dumps({os.path.relpath(os.path.join(d,n),top):"
        "'->'+os.readlink(os.path.join(d,n)) if os.path.islink(os.path.join(d,n)) else open(os.path.join(d,n)).read()"
        " for d,_,ns in os.walk(top) for n in ns"
        " if os.path.islink(os.path.join(d,n)) or os.path.isfile(os.path.join(d,n))}))"
    )
    found: dict[str, str] = json.loads(wire.stdout(session, f'python3 -c "{program}" {path}'))
    return found
