"""Plain heads are written and read as h11 does, and whatever is not plain is left to it."""

from __future__ import annotations

from typing import Any

import h11
import pytest
from hypothesis import example, given, strategies as st

from agentbay._transport.http_head import join_headers, read_plain_head, write_plain_request
from agentbay._transport.request import HeaderList, HttpRequest

HOST = (b"host", b"service")
ANY_BYTES = st.binary(max_size=12) | st.text("ab:-, \t\r\n\0\x7fé", max_size=12).map(
    lambda text: text.encode("latin-1")
)


def make_request(headers: HeaderList, body: bytes = b"", target: bytes = b"/", method: str = "POST") -> HttpRequest:
    return HttpRequest("http://service", target, headers, body, "label", method)


def read_by_h11(role: type[h11.Sentinel], data: bytes) -> list[Any]:
    """Return the events of a message, or raise h11.RemoteProtocolError."""
    parser = h11.Connection(role)
    if role is h11.CLIENT:
        parser.send(h11.Request(method="GET", target="/", headers=[HOST]))
        parser.send(h11.EndOfMessage())
    parser.receive_data(data)
    events = []
    while isinstance(event := parser.next_event(), h11.Request | h11.Response | h11.Data | h11.EndOfMessage):
        events.append(event)
    return events


@given(st.lists(st.tuples(ANY_BYTES, ANY_BYTES), max_size=3), st.binary(max_size=5), ANY_BYTES)
@example([(b"x", b"1\r\nauthorization: y")], b"", b"/")
@example([(b"x", b"1\n")], b"", b"/")
@example([(b"x", b"")], b"body", b"/?a=b")
@example([(b"content-length", b"7")], b"body", b"/")
def test_what_is_written_is_what_was_meant(others: HeaderList, body: bytes, target: bytes) -> None:
    """A server reads the request's own headers and body, or it is not written without h11."""
    headers = [HOST, *others, *([(b"content-length", str(len(body)).encode())] if body else [])]
    written = write_plain_request(make_request(headers, body, target))
    if written is not None:
        request, *data, end = read_by_h11(h11.SERVER, written)
        assert (request.method, request.target) == (b"POST", target)
        assert request.headers.raw_items() == headers
        assert b"".join(part.data for part in data) == body
        assert isinstance(end, h11.EndOfMessage)


@pytest.mark.parametrize(
    "request_",
    [
        make_request([HOST, (b"x", b"1\r\ny: 2")]),
        make_request([HOST, (b"x y", b"1")]),
        make_request([HOST], target=b"/a b"),
        make_request([HOST], body=b"body"),
        make_request([HOST, (b"content-length", b"5")], body=b"body"),
        make_request([HOST, (b"content-length", b"4"), (b"content-length", b"4")], body=b"body"),
        make_request([HOST, (b"transfer-encoding", b"chunked")]),
        make_request([HOST, (b"connection", b"close")]),
        make_request([HOST], method="HEAD"),
        make_request([]),
    ],
)
def test_requests_for_h11(request_: HttpRequest) -> None:
    assert write_plain_request(request_) is None


STATUS_LINES = [
    "HTTP/1.1 200 OK",
    "HTTP/1.1 404",
    "HTTP/1.1 500 ",
    "HTTP/1.0 200 OK",
    "HTTP/1.1 20 OK",
    "HTTP/1.1 204 No",
]
FIELDS = [
    "Content-Length: 5",
    "content-length:5 ",
    "Content-Length: 05",
    "Content-Length: +5",
    "Content-Length: 5, 5",
    "Content-Length: ٣",
    "Transfer-Encoding: chunked",
    "Connection: close",
    "Connection: Keep-Alive",
    "X-Id:\t a b \t",
    "X-Id: caf\xe9",
    "X-Id: \0",
    "X-Id:",
    " folded",
    "no colon",
    "X Y: 1",
]
LINES = st.sampled_from(FIELDS) | st.text("aX:-é \t", max_size=6)


@given(st.sampled_from(STATUS_LINES), st.lists(LINES, max_size=4), st.sampled_from(["\r\n", "\n"]))
@example("HTTP/1.1 200 OK", ["Content-Length: 5"], "\r\n")
def test_what_is_read_is_what_h11_reads(status: str, lines: list[str], newline: str) -> None:
    """Of a head that is read without h11, h11 reads the same."""
    data = newline.join([status, *lines, "", ""]).encode("utf-8")
    found = read_plain_head(data)
    if found is not None:
        head, length = found
        response, *body = read_by_h11(h11.CLIENT, data + b"12345")
        assert head.status_code == response.status_code
        fields = [(name.decode("ascii"), value.decode("latin-1")) for name, value in response.headers]
        assert head.headers == join_headers(fields)
        assert b"".join(part.data for part in body if isinstance(part, h11.Data)) == b"12345"[:length]
        assert length <= 5


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 5\n\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: %b\r\n\r\n" % (b"9" * 5000),
        b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n",
        b"SSH-2.0-OpenSSH\r\n\r\n",
    ],
)
def test_heads_for_h11(head: bytes) -> None:
    assert read_plain_head(head) is None
