"""The proxy of a sandbox: real programs in a real sandbox, real servers on this machine."""

from __future__ import annotations

import asyncio
import hashlib
import socket
import sys
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

import pytest
import trustme

from agentbay.local.network import proxy
from agentbay.local.network.dialer import EgressDialer
from agentbay.local.network.egress_policy import EgressRule, parse_rule
from agentbay.local.network.proxy import EgressProxy
from agentbay.local.sandbox.service.manager import Completed, Sandbox
from tests.local.network.servers import WHEEL, serving
from tests.local.sandbox.conftest import laboratory
from tests.local.traces import PATIENCE, eventually

CURL = "curl -sS -m 30 --noproxy '' "
Conduct = Callable[[Iterable[str], Callable[["Way"], Awaitable[None]]], None]


class Way:
    """A sandbox, the proxy that serves it, and the port at which the runtime is said to listen."""

    def __init__(self, sandbox: Sandbox, door: EgressProxy, directory: Path) -> None:
        self.sandbox, self.door, self.directory = sandbox, door, directory

    async def sh(self, command: str) -> Completed:
        return await self.sandbox.run(["bash", "-c", command], timeout=PATIENCE)

    async def raw(self, data: bytes) -> bytes:
        """Send bytes to the proxy and return what comes back until it hangs up."""
        connection = await self.sandbox.connect(3128)
        reader, writer = await asyncio.open_connection(sock=connection)
        writer.write(data)
        answer = await asyncio.wait_for(reader.read(), PATIENCE)
        writer.close()
        return answer


@pytest.fixture
def conduct(tmp_path: Path) -> Conduct:
    """Run an async function with a sandbox whose proxy allows what the rules say."""

    def run(
        rules: Iterable[str],
        body: Callable[[Way], Awaitable[None]],
        *,
        own_port: int = 0,
        more: Iterable[EgressRule] = (),
    ):
        async def whole() -> None:
            async with laboratory(tmp_path) as lab:
                sandbox = await lab.sandbox(network="proxy")
                listener = sandbox.take_proxy_listener()
                assert listener is not None
                assert sandbox.take_proxy_listener() is None
                door = EgressProxy(listener, EgressDialer(map(parse_rule, rules), own_port=own_port, more=lambda: more))
                try:
                    await asyncio.wait_for(body(Way(sandbox, door, tmp_path / "sandbox-1")), 2 * PATIENCE)
                finally:
                    door.close()

        asyncio.run(whole())

    return run


@pytest.fixture(autouse=True)
def no_proxy_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def test_http_and_tunnels(conduct):
    """Plain requests and tunnels reach what is allowed; nothing of the way shows there."""
    authority = trustme.CA()
    with serving() as port, serving(authority) as secure:

        async def body(way: Way) -> None:
            authority.cert_pem.write_to_path(str(way.directory / "home/ca.pem"))
            done = await way.sh(f"{CURL} http://localhost:{port}/a/b?c=d%20e")
            lines = done.stdout.decode().splitlines()
            assert lines[0] == "GET /a/b?c=d%20e"
            assert f"host: localhost:{port}" in lines
            assert not [line for line in lines if line.startswith("proxy")]
            assert (await way.sh(f"{CURL} -p http://localhost:{port}/tunnel")).stdout.startswith(b"GET /tunnel\n")
            done = await way.sh(f"{CURL} --cacert ca.pem https://localhost:{secure}/secure")
            assert done.stdout.startswith(b"GET /secure\n"), done
            sent = "head -c 3000000 /dev/zero"
            digest = hashlib.sha256(bytes(3_000_000)).hexdigest()
            for more in ("", "-H 'Transfer-Encoding: chunked'", "-p"):
                done = await way.sh(f"{sent} | {CURL} {more} --data-binary @- http://localhost:{port}/")
                assert done.stdout.decode() == f"3000000 bytes, {digest}\n", done

        conduct([f"localhost:{port}", f"localhost:{secure}"], body)


def test_pip(conduct):
    """pip, as it is, downloads a package through the proxy, and says clearly what is refused."""
    with serving() as port:

        async def body(way: Way) -> None:
            pip = f"NO_PROXY= no_proxy= {sys.executable} -m pip --disable-pip-version-check --isolated download"
            done = await way.sh(f"{pip} --no-deps -d w -i http://localhost:{port}/simple agentbay-trial; ls w")
            assert done.stdout.decode().splitlines()[-1] == WHEEL, done
            done = await way.sh(f"{pip} --no-deps --retries 0 -i http://localhost:{port + 1}/simple agentbay-trial")
            assert done.exit_code != 0
            done = await way.sh(f"{pip} --no-deps --retries 1 -i https://other.test/simple agentbay-trial")
            assert b"403 agentbay: other.test:443 is not allowed" in done.stdout + done.stderr, done

        conduct([f"localhost:{port}"], body)


def test_refusals_say_what_to_do(conduct):
    """What is not allowed is refused with a text, at once and without a look at the name."""
    with serving() as port:

        async def body(way: Way) -> None:
            done = await way.sh(f"{CURL} -i http://localhost:{port}/")
            assert done.stdout.startswith(b"HTTP/1.1 403 agentbay: localhost")
            assert f"start the runtime with --allow-host localhost:{port}.\n".encode() in done.stdout
            done = await way.sh(f"{CURL} https://no-such-name.test/")
            assert b"response 403" in done.stderr
            done = await way.sh(f"{CURL} -i http://gone.test/")
            assert done.stdout.startswith(b"HTTP/1.1 502 agentbay: gone.test cannot be resolved")
            done = await way.sh(f"{CURL} --noproxy '*' http://127.0.0.1:{port}/; echo $?; cat /proc/net/route")
            assert done.stdout.splitlines()[0] == b"7"
            assert len(done.stdout.splitlines()) == 2  # the routes' heading and none of them

        conduct(["gone.test"], body)


def test_what_it_takes_long_to_find_out(conduct):
    """Before anything is refused, what is known only after a while is asked for, once."""
    with serving() as port:
        asked: list[int] = []

        def more() -> set[EgressRule]:
            asked.append(1)
            return {EgressRule("localhost", (port,))}

        class Late:
            def __iter__(self):
                return iter(more())

        async def body(way: Way) -> None:
            answers = await asyncio.gather(*(way.sh(f"{CURL} http://localhost:{port}/") for _ in range(3)))
            assert all(done.stdout.startswith(b"GET /") for done in answers)
            await way.sh(f"{CURL} http://localhost:1/")
            assert asked == [1]

        conduct([], body, more=Late())


CONTROL = ["localhost", "127.0.0.1", "127.1", "0x7f000001", "2130706433", "017700000001", "0.0.0.0", "[::1]",
           "[::ffff:127.0.0.1]", "localhost."]  # fmt: skip


@pytest.mark.parametrize(
    "rules", [["*:{port}"], ["localhost:{port}", "127.0.0.1:{port}", "[::1]:{port}", "0.0.0.0:{port}"]]
)
def test_the_control_port_by_any_name(conduct, rules):
    """However it is written, and whatever was allowed, the runtime's own port is not reached; another one is."""
    with serving() as port, serving() as other:

        async def body(way: Way) -> None:
            for host in CONTROL:
                for request in (f"CONNECT {host}:{port} HTTP/1.1", f"GET http://{host}:{port}/ HTTP/1.1"):
                    answer = await way.raw(f"{request}\r\nHost: {host}:{port}\r\n\r\n".encode())
                    assert answer.split(b" ", 2)[1] in (b"403", b"502"), (request, answer)
            answer = await way.raw(f"GET http://127.0.0.1:{other}/ HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert answer.startswith(b"HTTP/1.1 200")

        conduct([*(rule.format(port=port) for rule in rules), f"127.0.0.1:{other}"], body, own_port=port)


def test_a_name_that_means_this_machine(conduct, monkeypatch):
    """A pattern never covers an address that is not public, also if the name means another one a moment later."""
    with serving() as port:
        answers = [["127.0.0.1"], ["1.1.1.1", "127.0.0.1"], ["169.254.169.254"], ["::ffff:10.0.0.1"]]
        asked: list[str] = []

        async def body(way: Way) -> None:
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
                answer = await way.raw(f"CONNECT rebind.test:{port} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                assert answer.startswith(b"HTTP/1.1 403 agentbay: rebind.test is not a public address"), answer
            assert len(asked) == len(answers)  # each name is looked up once

        conduct([f"*.test:{port}"], body)


@pytest.mark.parametrize(
    "request_",
    [
        "CONNECT {there} HTTP/1.1\r\nHost: {here}",  # what counts is where it goes
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
def test_requests_of_two_minds(conduct, request_):
    """What two readers could take for different things, or for different places, is refused."""
    with serving() as port:

        async def body(way: Way) -> None:
            text = request_.format(here=f"localhost:{port}", there=f"127.0.0.1:{port}")
            answer = await way.raw(text.encode() + b"\r\n\r\n")
            assert answer.split(b" ", 2)[1] in (b"400", b"403"), answer

        conduct([f"localhost:{port}"], body)


def test_one_request_a_connection(conduct):
    """What follows a request on its connection is passed on nowhere, and the server sees the host that was allowed."""
    with serving() as port:

        async def body(way: Way) -> None:
            first = (
                f"GET http://localhost:{port}/1 HTTP/1.1\r\nHost: inner.test\r\nConnection: x-drop\r\nX-Drop: 1\r\n\r\n"
            )
            second = "GET http://other.test/2 HTTP/1.1\r\nHost: other.test\r\n\r\n"
            answer = await way.raw((first + second).encode())
            assert answer.count(b"HTTP/1.1") == 1
            assert f"host: localhost:{port}\n".encode() in answer
            assert b"inner.test" not in answer
            assert b"x-drop" not in answer.partition(b"\r\n\r\n")[2]

        conduct([f"localhost:{port}"], body)


def test_its_end(conduct, monkeypatch):
    """Closed, it breaks off what is under way and accepts no more; too many wait and are served later."""
    monkeypatch.setattr(proxy, "_HALF_CLOSED_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent, serving() as port:

        async def body(way: Way) -> None:
            place = silent.getsockname()[1]
            hold = f"CONNECT 127.0.0.1:{place} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
            held = []
            for _ in range(128):
                reader, writer = await asyncio.open_connection(sock=await way.sandbox.connect(3128))
                writer.write(hold)
                assert (await reader.readline()).startswith(b"HTTP/1.1 200")
                held.append((reader, writer))
            waiting = asyncio.create_task(way.sh(f"{CURL} http://localhost:{port}/"))
            await asyncio.sleep(0.2)
            assert not waiting.done()
            held.pop()[1].close()
            assert (await waiting).stdout.startswith(b"GET /")
            way.door.close()
            await asyncio.wait_for(asyncio.gather(*(reader.read() for reader, _ in held)), PATIENCE)
            assert (await way.sh(f"{CURL} http://localhost:{port}/; echo $?")).stdout == b"7\n"
            for _, writer in held:
                writer.close()
            assert eventually(lambda: not way.door._tasks)

        conduct([f"127.0.0.1:{silent.getsockname()[1]}", f"localhost:{port}"], body)


def test_through_the_proxy_of_this_machine(conduct, monkeypatch, tmp_path):
    """Where this machine's programs use a proxy, so does this one, with the login that sandboxes do not see."""
    seen: list[bytes] = []

    async def upstream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n" if seen[-1].startswith(b"CONNECT") else b"HTTP/1.1 204 No\r\n\r\n")
        if seen[-1].startswith(b"CONNECT"):
            writer.write((await reader.readexactly(4)).upper())
        await writer.drain()
        writer.close()

    async def body(way: Way) -> None:
        server = await asyncio.start_server(upstream, "127.0.0.1", 0)
        url = f"http://me:secret@127.0.0.1:{server.sockets[0].getsockname()[1]}"
        monkeypatch.setenv("http_proxy", url)
        monkeypatch.setenv("https_proxy", url)
        answer = await way.raw(b"CONNECT far.test:443 HTTP/1.1\r\nHost: x\r\n\r\nping")
        assert answer.endswith(b"PING")
        assert (await way.raw(b"GET http://far.test/x HTTP/1.1\r\nHost: x\r\n\r\n")).startswith(b"HTTP/1.1 204")
        assert seen[1].startswith(b"GET http://far.test:80/x HTTP/1.1\r\n")
        assert all(b"proxy-authorization: Basic bWU6c2VjcmV0" in head.replace(b"Proxy-A", b"proxy-a") for head in seen)
        for host in ("127.0.0.1", "0x7f000001", "localhost", "10.0.0.1"):  # near: not by way of that proxy
            assert b" 403 " in await way.raw(f"CONNECT {host}:443 HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert b" 403 " in await way.raw(b"CONNECT far.test:8443 HTTP/1.1\r\nHost: x\r\n\r\n")
        assert len(seen) == 2
        server.close()

    conduct(["*", "*:8443"], body, own_port=8443)
