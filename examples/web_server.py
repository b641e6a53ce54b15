"""Run a web server in a session, and use it through a link.

    python examples/web_server.py

The link carries a token of its own, which opens this port of this session only: give it to whoever shall use it.
"""

from __future__ import annotations

import time

import httpx

from agentbay import AgentBay, Session

PORT = 30100  # of those that links of the cloud can lead to, 30100 to 30199
SERVER = f"""
import http.server, json, urllib.parse

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
        numbers = [int(number) for number in query.get("n", [])]
        answer = json.dumps({{"sum": sum(numbers)}}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(answer)

http.server.ThreadingHTTPServer(("", {PORT}), Handler).serve_forever()
"""


def link_to(session: Session) -> str:
    """Return a link to the port, once something answers there."""
    link = str(session.get_link("https", PORT).unwrap().data)
    deadline = time.monotonic() + 30
    while httpx.get(link).status_code != 200:
        if time.monotonic() > deadline:
            raise TimeoutError("The server has not started within 30 s.")
        time.sleep(0.1)
    return link


def main() -> None:
    """Start the server, use it, and see the link end with the session."""
    with AgentBay.local() as bay:
        with bay.session() as session:
            session.file_system.write_file("server.py", SERVER).unwrap()
            session.command.start("python3 server.py")
            link = link_to(session)
            print("the server says:", httpx.get(link, params={"n": [1, 2, 39]}).json())
        print("after the session:", httpx.get(link).status_code)


if __name__ == "__main__":
    main()
