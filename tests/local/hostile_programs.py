"""Programs for sessions that send the service what takes it long to parse."""

from __future__ import annotations

# a client of the egress proxy, which sends a body in chunks of one byte; argument: the port to name
PROXY_CLIENT = """
import os, socket, sys, threading, time
from urllib.parse import urlsplit
proxy, end = urlsplit(os.environ["HTTP_PROXY"]), time.monotonic() + {seconds}
HEAD = "POST http://127.0.0.1:{port}/ HTTP/1.1\\r\\nHost: x\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n".encode()
def send():
    while time.monotonic() < end:
        try:
            with socket.create_connection((proxy.hostname, proxy.port)) as connection:
                connection.sendall(HEAD)
                while time.monotonic() < end:
                    connection.sendall(b"1\\r\\na\\r\\n" * 10000)
        except OSError:
            time.sleep(0.01)
threads = [threading.Thread(target=send) for _ in range(20)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
"""

# a server on port 30100, which answers in chunks of one byte, or with one head before its answer after the other
LINK_SERVER = """
import socket, threading, time
end = time.monotonic() + {seconds}
PIECES = {{
    b"chunks": (b"HTTP/1.1 200 OK\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n", b"1\\r\\na\\r\\n"),
    b"heads": (b"", b"HTTP/1.1 103 Early Hints\\r\\n\\r\\n"),
}}
def serve(connection):
    try:
        first, piece = PIECES[connection.recv(65536).split(b" ")[1].strip(b"/")]
        connection.sendall(first)
        while time.monotonic() < end:
            connection.sendall(piece * 10000)
    except OSError:
        pass
with socket.create_server(("127.0.0.1", 30100)) as listener:
    open("listening", "w").close()
    while True:
        threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"""

# takes the place of the browser, and floods whoever connects
FALSE_BROWSER = """
import base64, hashlib, itertools, json, os, socket, struct, threading, time
DIRECTORY = "/tmp/agentbay_browser"
def frame(content, opcode=1):
    size = len(content)
    if size < 126:
        return bytes([0x80 | opcode, size]) + content
    return bytes([0x80 | opcode, 127]) + struct.pack(">Q", size) + content
def event(method, **params):
    return frame(json.dumps(dict(method=method, params=params, sessionId="s")).encode())
FLOODS = {{
    "nothing": lambda: b"",
    "empty frames": lambda: frame(b"") * 50000,
    "pings": lambda: frame(b"", 9) * 50000,
    "dialogs": lambda: event("Page.javascriptDialogOpening", type="alert", message="x" * 300) * 200,
    "pages": lambda: event("Target.targetCreated", targetInfo=dict(type="page", targetId="x")) * 200,
    "empty lists": lambda: frame(b"[" + b"[]," * (8 << 20) + b"1]"),
    "large messages": lambda: frame(b"{{" + b" " * (30 << 20) + b"}}"),
}}
def keep_port_file(contents):
    for content in itertools.cycle(contents):
        os.makedirs(DIRECTORY, exist_ok=True)
        with open(f"{{DIRECTORY}}/mine", "w") as file:
            file.write(content)
        os.rename(f"{{DIRECTORY}}/mine", f"{{DIRECTORY}}/DevToolsActivePort")
        time.sleep(0.002)
def read(connection):
    while connection.recv(1 << 20):
        pass
def serve(connection):
    try:
        head = b""
        while b"\\r\\n\\r\\n" not in head:
            head += connection.recv(65536) or exit()
        if {flood!r} == "redirect":
            connection.sendall(b"HTTP/1.1 302 Found\\r\\nLocation: ws://127.0.0.1:1/\\r\\n\\r\\n")
            return
        line = next(line for line in head.split(b"\\r\\n") if line.lower().startswith(b"sec-websocket-key"))
        key = line.partition(b":")[2].strip() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        accept = base64.b64encode(hashlib.sha1(key).digest())
        connection.sendall(b"HTTP/1.1 101 Switching Protocols\\r\\nUpgrade: websocket\\r\\nConnection: Upgrade\\r\\n"
                           b"Sec-WebSocket-Accept: " + accept + b"\\r\\n\\r\\n")
        threading.Thread(target=read, args=(connection,), daemon=True).start()
        flood, end = FLOODS[{flood!r}](), time.monotonic() + {seconds}
        while time.monotonic() < end:
            connection.sendall(flood)
    except OSError:
        pass
with socket.create_server(("127.0.0.1", 0)) as listener:
    contents = {port_files!r} or [f"{{listener.getsockname()[1]}}\\n/devtools/browser/x\\n"]
    threading.Thread(target=keep_port_file, args=(contents,), daemon=True).start()
    while True:
        threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"""
