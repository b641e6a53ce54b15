"""A minimal service over HTTP and HTTPS, so that benchmarks measure the client.

    stub.py CERTIFICATE      prints the two ports, then serves until it is ended

A request for `/answers/MILLISECONDS/BYTES` sets how long every later answer takes and how much a command printed, and
tells how many connections there were since the last such request.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import ssl
import sys

_ACTION = re.compile(rb"[?&]Action=(\w+)")
_SESSION = re.compile(rb"SessionId=([\w-]+)")
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_LINE = "-rw-r--r-- 1 wuying wuying 713 main.py\n"
_LABELS = {"Labels": json.dumps({"team": "sdk"}), "TotalCount": 1}


class Stub:
    """Answer each action, with "not found" for deleted sessions."""

    def __init__(self) -> None:
        self.latency = 0.0
        self.text = tool_result(3 * len(_LINE))
        self.connections = 0
        self.numbers = itertools.count()
        self.gone: set[bytes] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = _LENGTH.search(head)
                body = await reader.readexactly(int(length[1])) if length else b""
                status, reply = await self.answer(head, body)
                text = json.dumps(reply).encode()
                head = b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
                writer.write(head % (status, len(text)) + text)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def answer(self, head: bytes, body: bytes) -> tuple[int, object]:
        """Answer one request."""
        if b" /answers/" in head:
            seen, self.connections = self.connections - 1, 0
            milliseconds, size = map(int, head.split()[1].split(b"/")[2:])
            self.latency, self.text = milliseconds / 1000, tool_result(size)
            return 200, seen
        await asyncio.sleep(self.latency)
        action = _ACTION.search(head) or _ACTION.search(b"&" + body)
        session = _SESSION.search(head) or _SESSION.search(body)
        return self.reply(action[1] if action else b"", session[1] if session else b"")

    def reply(self, action: bytes, session: bytes) -> tuple[int, object]:
        """Return the reply to an action."""
        number = next(self.numbers)
        if action == b"GetSessionDetail" and session in self.gone:
            text = f"The session {session.decode()} was not found."
            refusal = {"Code": "InvalidMcpSession.NotFound", "Message": text, "HttpStatusCode": 400, "Success": False}
            return 400, {"RequestId": f"R-{number}", **refusal}
        if action == b"DeleteSessionAsync":
            self.gone.add(session)
        data: object = {"SessionId": session.decode() or f"session-{number}", "Status": "RUNNING", "Success": True}
        data = {b"CallMcpTool": self.text, b"GetLabel": _LABELS, b"DeleteSessionAsync": None}.get(action, data)
        return 200, {"RequestId": f"R-{number}", "Success": True, "Code": "ok", "HttpStatusCode": 200, "Data": data}


def tool_result(size: int) -> dict[str, object]:
    """Return the result of a command that printed about this many bytes."""
    output = json.dumps({"stdout": "total 24\n" + _LINE * (size // len(_LINE)), "exit_code": 0})
    return {"content": [{"type": "text", "text": output}], "isError": False}


async def main(certificate: str) -> None:
    stub = Stub()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    ports = []
    for tls in (None, context):
        server = await asyncio.start_server(stub.serve, "127.0.0.1", 0, backlog=1000, ssl=tls)
        ports.append(server.sockets[0].getsockname()[1])
    print(*ports, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
