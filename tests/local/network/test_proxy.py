"""The egress proxy with real programs, sandboxes and servers."""

from __future__ import annotations

import asyncio
import hashlib
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from pathlib import Path

import pytest
import trustme

from agentbay.local.network import proxy_request
from agentbay.local.network.dialer import EgressDialer
from agentbay.local.network.egress_policy import EgressRule, parse_rule
from agentbay.local.network.proxy import EgressProxy
from agentbay.local.sandbox.service.manager import Completed, Sandbox
from tests.local.network.servers import WHEEL, serving
from tests.local.sandbox.conftest import sandbox_factory
from tests.local.traces import PATIENCE, eventually

CURL = "curl -sS -m 30 --noproxy '' "
MakeProxied = Callable[..., AbstractAsyncContextManager["ProxiedSandbox"]]


class ProxiedSandbox:
    """A sandbox and its egress proxy."""

    def __init__(self, sandbox: Sandbox, proxy: EgressProxy, directory: Path) -> None:
        self.sandbox, self.proxy, self.directory = sandbox, proxy, directory

    async def sh(self, command: str) -> Completed:
        return await self.sandbox.run(["bash", "-c", command], timeout=PATIENCE)

    async def raw(self, data: bytes) -> bytes:
        """Send bytes to the proxy, and return all that it answers."""
        connection = await self.sandbox.connect(3128)
        reader, writer = await asyncio.open_connection(sock=connection)
        writer.write(data)
        answer = await asyncio.wait_for(reader.read(), PATIENCE)
        writer.close()
        return answer


@pytest.fixture
def proxied(tmp_path: Path) -> MakeProxied:
    """Return a function that makes a proxied sandbox for a block."""

    @asynccontextmanager
    async def make(
        rules: Iterable[str], *, own_port: int = 0, more: Iterable[EgressRule] = ()
    ) -> AsyncIterator[ProxiedSandbox]:
        async with asyncio.timeout(2 * PATIENCE), sandbox_factory(tmp_path) as factory:
            sandbox = await factory.make(network="proxy")
            listener = sandbox.take_proxy_listener()
            assert listener is not None
            assert sandbox.take_proxy_listener() is None
            dialer = EgressDialer(map(parse_rule, rules), own_port=own_port, load_more_rules=lambda: more)
            with closing(EgressProxy(listener, dialer)) as egress_proxy:
                yield ProxiedSandbox(sandbox, egress_proxy, tmp_path / "sandbox-1")

    return make


@pytest.fixture(autouse=True)
def no_system_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


async def test_http_and_tunnels(proxied):
    """Requests and tunnels reach allowed hosts, without a trace of the proxy."""
    authority = trustme.CA()
    with serving() as port, serving(authority) as secure:
        async with proxied([f"localhost:{port}", f"localhost:{secure}"]) as inside:
            authority.cert_pem.write_to_path(str(inside.directory / "home/ca.pem"))
            done = await inside.sh(f"{CURL} http://localhost:{port}/a/b?c=d%20e")
            lines = done.stdout.decode().splitlines()
            assert lines[0] == "GET /a/b?c=d%20e"
            assert f"host: localhost:{port}" in lines
            assert not [line for line in lines if line.startswith("proxy")]
            assert (await inside.sh(f"{CURL} -p http://localhost:{port}/tunnel")).stdout.startswith(b"GET /tunnel\n")
            done = await inside.sh(f"{CURL} --cacert ca.pem https://localhost:{secure}/secure")
            assert done.stdout.startswith(b"GET /secure\n"), done
            sent = "head -c 3000000 /dev/zero"
            digest = hashlib.sha256(bytes(3_000_000)).hexdigest()
            for more in ("", "-H 'Transfer-Encoding: chunked'", "-p"):
                done = await inside.sh(f"{sent} | {CURL} {more} --data-binary @- http://localhost:{port}/")
                assert done.stdout.decode() == f"3000000 bytes, {digest}\n", done


async def test_pip(proxied):
    """pip downloads through the proxy, and shows why a host is refused."""
    with serving() as port:
        async with proxied([f"localhost:{port}"]) as inside:
            pip = f"NO_PROXY= no_proxy= {sys.executable} -m pip --disable-pip-version-check --isolated download"
            done = await inside.sh(f"{pip} --no-deps -d w -i http://localhost:{port}/simple agentbay-trial; ls w")
            assert done.stdout.decode().splitlines()[-1] == WHEEL, done
            done = await inside.sh(f"{pip} --no-deps --retries 0 -i http://localhost:{port + 1}/simple agentbay-trial")
            assert done.exit_code != 0
            done = await inside.sh(f"{pip} --no-deps --retries 1 -i https://other.test/simple agentbay-trial")
            assert b"403 agentbay: other.test:443 is not allowed" in done.stdout + done.stderr, done


async def test_refusals_name_the_option(proxied):
    """A refusal names --allow-host, and the name is not resolved."""
    with serving() as port:
        async with proxied(["gone.test"]) as inside:
            done = await inside.sh(f"{CURL} -i http://localhost:{port}/")
            assert done.stdout.startswith(b"HTTP/1.1 403 agentbay: localhost")
            assert f"start the runtime with --allow-host localhost:{port}.\n".encode() in done.stdout
            done = await inside.sh(f"{CURL} https://no-such-name.test/")
            assert b"response 403" in done.stderr
            done = await inside.sh(f"{CURL} -i http://gone.test/")
            assert done.stdout.startswith(b"HTTP/1.1 502 agentbay: gone.test cannot be resolved")
            done = await inside.sh(f"{CURL} --noproxy '*' http://127.0.0.1:{port}/; echo $?; cat /proc/net/route")
            assert done.stdout.splitlines()[0] == b"7"
            assert len(done.stdout.splitlines()) == 2  # a heading and no route


async def test_more_rules_are_loaded_once(proxied):
    """Slow rules are loaded once, before the first refusal."""
    with serving() as port:
        asked: list[int] = []

        def more() -> set[EgressRule]:
            asked.append(1)
            return {EgressRule("localhost", (port,))}

        class Late:
            def __iter__(self):
                return iter(more())

        async with proxied([], more=Late()) as inside:
            answers = await asyncio.gather(*(inside.sh(f"{CURL} http://localhost:{port}/") for _ in range(3)))
            assert all(done.stdout.startswith(b"GET /") for done in answers)
            await inside.sh(f"{CURL} http://localhost:1/")
            assert asked == [1]


LOOPBACK_NAMES = ["localhost", "127.0.0.1", "127.1", "0x7f000001", "2130706433", "017700000001", "0.0.0.0", "[::1]",
           "[::ffff:127.0.0.1]", "localhost."]  # fmt: skip


@pytest.mark.parametrize(
    "rules", [["*:{port}"], ["localhost:{port}", "127.0.0.1:{port}", "[::1]:{port}", "0.0.0.0:{port}"]]
)
async def test_own_port_by_any_name(proxied, rules):
    """No spelling and no rule reaches the runtime's own port."""
    with serving() as port, serving() as other:
        async with proxied(
            [*(rule.format(port=port) for rule in rules), f"127.0.0.1:{other}"], own_port=port
        ) as inside:
            for host in LOOPBACK_NAMES:
                for request in (f"CONNECT {host}:{port} HTTP/1.1", f"GET http://{host}:{port}/ HTTP/1.1"):
                    answer = await inside.raw(f"{request}\r\nHost: {host}:{port}\r\n\r\n".encode())
                    assert answer.split(b" ", 2)[1] in (b"403", b"502"), (request, answer)
            answer = await inside.raw(f"GET http://127.0.0.1:{other}/ HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert answer.startswith(b"HTTP/1.1 200")


async def test_dns_rebinding(proxied, monkeypatch):
    """A pattern covers no private address, and a name is resolved only once."""
    with serving() as port:
        answers = [["127.0.0.1"], ["1.1.1.1", "127.0.0.1"], ["169.254.169.254"], ["::ffff:10.0.0.1"]]
        asked: list[str] = []
        async with proxied([f"*.test:{port}"]) as inside:
            loop = asyncio.get_running_loop()
            real = loop.getaddrinfo

            async def rebinding(host: str, service: int, **options: object):
                if host != "rebind.test":
                    return await real(host, service, **options)
                asked.append(host)
                return [
                    (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, service))
                    for address in answers[len(asked) - 1]
                ]

            monkeypatch.setattr(loop, "getaddrinfo", rebinding)
            for _ in answers:
                answer = await inside.raw(f"CONNECT rebind.test:{port} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                assert answer.startswith(b"HTTP/1.1 403 agentbay: rebind.test is not a public address"), answer
            assert len(asked) == len(answers)  # each name is looked up once


@pytest.mark.parametrize(
    "request_",
    [
        "CONNECT {there} HTTP/1.1\r\nHost: {here}",  # the request line counts, not the Host header
        "GET http://{here}@{there}/ HTTP/1.1\r\nHost: {here}",
        "GET http://{there}\\@{here}/ HTTP/1.1\r\nHost: {here}",
        "GET http://{there}#@{here}/ HTTP/1.1\r\nHost: {here}",
        "GET https://{here}/ HTTP/1.1\r\nHost: {here}",
        "GET / HTTP/1.1\r\nHost: {here}",
        "GET http://%6cocalhost:1/ HTTP/1.1\r\nHost: {here}",
        "CONNECT {here}/x HTTP/1.1\r\nHost: {here}",
        "CONNECT {here}@{there} HTTP/1.1\r\nHost: {here}",
        "POST http://{here}/ HTTP/1.1\r\nHost: {here}\r\nContent-Length: 4\r\nTransfer-Encoding: chunked",
        "POST http://{here}/ HTTP/1.1\r\nHost: {here}\r\nContent-Length: 4\r\nContent-Length: 5",
        "GET http://{here}/ HTTP/1.1\r\nHost: {here}\r\nX: a\rHost: {there}",
        "GET http://{here}/\x00 HTTP/1.1\r\nHost: {here}",
        "nonsense",
    ],
)
async def test_ambiguous_requests(proxied, request_):
    """A request that two parsers could read differently is refused."""
    with serving() as port:
        async with proxied([f"localhost:{port}"]) as inside:
            text = request_.format(here=f"localhost:{port}", there=f"127.0.0.1:{port}")
            answer = await inside.raw(text.encode() + b"\r\n\r\n")
            assert answer.split(b" ", 2)[1] in (b"400", b"403"), answer


async def test_one_request_per_connection(proxied):
    """A second request is dropped, and the server sees the allowed host."""
    with serving() as port:
        async with proxied([f"localhost:{port}"]) as inside:
            first = (
                f"GET http://localhost:{port}/1 HTTP/1.1\r\nHost: inner.test\r\nConnection: x-drop\r\nX-Drop: 1\r\n\r\n"
            )
            second = "GET http://other.test/2 HTTP/1.1\r\nHost: other.test\r\n\r\n"
            answer = await inside.raw((first + second).encode())
            assert answer.count(b"HTTP/1.1") == 1
            assert f"host: localhost:{port}\n".encode() in answer
            assert b"inner.test" not in answer
            assert b"x-drop" not in answer.partition(b"\r\n\r\n")[2]


async def test_close_and_connection_limit(proxied, monkeypatch):
    """Connections beyond the limit wait, and closing breaks off all."""
    monkeypatch.setattr(proxy_request, "_HALF_CLOSED_TIMEOUT_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent, serving() as port:
        async with proxied([f"127.0.0.1:{silent.getsockname()[1]}", f"localhost:{port}"]) as inside:
            silent_port = silent.getsockname()[1]
            hold = f"CONNECT 127.0.0.1:{silent_port} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
            held = []
            for _ in range(128):
                reader, writer = await asyncio.open_connection(sock=await inside.sandbox.connect(3128))
                writer.write(hold)
                assert (await reader.readline()).startswith(b"HTTP/1.1 200")
                held.append((reader, writer))
            waiting = asyncio.create_task(inside.sh(f"{CURL} http://localhost:{port}/"))
            await asyncio.sleep(0.2)
            assert not waiting.done()
            held.pop()[1].close()
            assert (await waiting).stdout.startswith(b"GET /")
            inside.proxy.close()
            await asyncio.wait_for(asyncio.gather(*(reader.read() for reader, _ in held)), PATIENCE)
            assert (await inside.sh(f"{CURL} http://localhost:{port}/; echo $?")).stdout == b"7\n"
            for _, writer in held:
                writer.close()
            assert eventually(lambda: not inside.proxy._tasks)


async def test_through_the_system_proxy(proxied, monkeypatch, tmp_path):
    """The machine's own proxy is used, with credentials that sandboxes do not see."""
    seen: list[bytes] = []

    async def upstream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n" if seen[-1].startswith(b"CONNECT") else b"HTTP/1.1 204 No\r\n\r\n")
        if seen[-1].startswith(b"CONNECT"):
            writer.write((await reader.readexactly(4)).upper())
        await writer.drain()
        writer.close()

    async with proxied(["*", "far.test", "far.test:8443"], own_port=8443) as inside:
        server = await asyncio.start_server(upstream, "127.0.0.1", 0)
        url = f"http://me:secret@127.0.0.1:{server.sockets[0].getsockname()[1]}"
        monkeypatch.setenv("http_proxy", url)
        monkeypatch.setenv("https_proxy", url)
        answer = await inside.raw(b"CONNECT far.test:443 HTTP/1.1\r\nHost: x\r\n\r\nping")
        assert answer.endswith(b"PING")
        assert (await inside.raw(b"GET http://far.test/x HTTP/1.1\r\nHost: x\r\n\r\n")).startswith(b"HTTP/1.1 204")
        assert seen[1].startswith(b"GET http://far.test:80/x HTTP/1.1\r\n")
        assert all(b"proxy-authorization: Basic bWU6c2VjcmV0" in head.replace(b"Proxy-A", b"proxy-a") for head in seen)
        for host in ("127.0.0.1", "0x7f000001", "localhost", "10.0.0.1"):  # these need no proxy
            assert b" 403 " in await inside.raw(f"CONNECT {host}:443 HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert b" 403 " in await inside.raw(b"CONNECT far.test:8443 HTTP/1.1\r\nHost: x\r\n\r\n")
        assert len(seen) == 2
        server.close()


async def test_patterns_behind_the_system_proxy(proxied, monkeypatch):
    """A pattern covers public addresses only, also where another proxy resolves the name."""
    answers = {"public.test": "1.1.1.1", "intranet.corp": "10.1.2.3", "db.example.lan": "::ffff:0:7f00:1"}
    seen: list[bytes] = []

    async def upstream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append((await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")[0])
        writer.write(b"HTTP/1.1 204 No\r\n\r\n")
        writer.close()

    async with proxied(["*"]) as inside:
        loop = asyncio.get_running_loop()
        real = loop.getaddrinfo

        async def lookup(host: str, port: int, **options: object):
            if host == "unknown.test":
                raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
            return await real(answers.get(host, host), port, **options)

        monkeypatch.setattr(loop, "getaddrinfo", lookup)
        server = await asyncio.start_server(upstream, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        monkeypatch.setenv("http_proxy", url)
        monkeypatch.setenv("https_proxy", url)
        for host, status in (("intranet.corp", 403), ("db.example.lan", 403), ("unknown.test", 502)):
            for request in (f"CONNECT {host}:443", f"GET http://{host}/"):
                answer = await inside.raw(f"{request} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                assert answer.startswith(f"HTTP/1.1 {status} agentbay: ".encode()), answer
        assert seen == []
        assert b" 204 " in await inside.raw(b"GET http://public.test/x HTTP/1.1\r\nHost: x\r\n\r\n")
        assert seen == [b"GET http://public.test:80/x HTTP/1.1"]
        server.close()
