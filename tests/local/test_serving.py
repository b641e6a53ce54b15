"""Where a runtime serves, whom, what it logs, and how it stops."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
import ssl
import stat
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import trustme

from agentbay import AgentBay, AsyncAgentBay, AuthenticationError, Config, ConfigurationError
from agentbay.local import listening
from agentbay.local.options import Options, parse_arguments, parse_size
from tests.local.raw import KEY, Child, Refused, Wire, embedded
from tests.local.traces import PATIENCE, eventually, processes_with, unique_seconds

NAME = socket.gethostname()  # leads to this machine, and is not the loopback's
SECOND = "second.example"


def own_address() -> str:
    """Return an address of this machine other than 127.0.0.1."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:  # no network at all
            return "127.0.0.2"
        return str(probe.getsockname()[0])


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Files of an authority, a certificate and its key."""
    directory = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    issued = authority.issue_cert(NAME, "localhost", "127.0.0.1", "::1", own_address(), SECOND, common_name=NAME)
    files = {name: str(directory / f"{name}.pem") for name in ("ca", "cert", "key")}
    authority.cert_pem.write_to_path(files["ca"])
    issued.private_key_pem.write_to_path(files["key"])
    for pem in issued.cert_chain_pems:
        pem.write_to_path(files["cert"], append=True)
    return files


def command(*arguments: str, key: str = KEY) -> Child:
    program = "import sys; from agentbay.cli import main; sys.exit(main())"
    return Child(["-c", program, "local", *arguments], parent_pipe=False, AGENTBAY_API_KEY=key)


def test_for_other_machines(certificate: dict[str, str]):
    """With TLS and a server name, every URL has that name."""
    with command("--host", NAME, "--tls-cert", certificate["cert"], "--tls-key", certificate["key"]) as child:
        assert child.line.startswith(f"agentbay local ready at https://{NAME.lower()}:")
        url = child.line.split()[-1]
        with AgentBay(KEY, cfg=Config(endpoint=url), verify=certificate["ca"]) as bay, bay.session() as session:
            assert session.command.run("echo over TLS").output == "over TLS\n"
            wire = Wire(url)
            wire.http = httpx.Client(base_url=url, verify=ssl.create_default_context(cafile=certificate["ca"]))
            with wire.http:
                found = wire.data("GetSession", SessionId=session.session_id)
                link = wire.data("GetLink", SessionId=session.session_id, ProtocolType="https", Port=30150)["Url"]
                for name, scheme in (("ResourceUrl", "https"), ("LinkUrl", "https"), ("WsUrl", "wss")):
                    assert found[name].startswith(url.replace("https", scheme) + "/")
                assert link.startswith(url + "/")
                for headers, status in (
                    ({"host": NAME}, 200),
                    ({"host": "localhost"}, 200),
                    ({"origin": url}, 200),
                    ({"host": "evil.example"}, 403),
                    ({"host": f"{NAME}.evil.example"}, 403),
                    ({"origin": "https://evil.example"}, 403),
                    ({"origin": url.replace("https", "http")}, 403),
                ):
                    assert wire.http.get("/healthz", headers=headers).status_code == status
        with AgentBay("another-key", cfg=Config(endpoint=url), verify=certificate["ca"]) as stranger:
            assert isinstance(stranger.create().exception, AuthenticationError)
        with pytest.raises(httpx.HTTPError):
            httpx.get(url.replace("https", "http") + "/healthz", trust_env=False)
        assert child.send(signal.SIGTERM) == 0


@pytest.mark.parametrize("host", ["0.0.0.0", "::"] if socket.has_dualstack_ipv6() else ["0.0.0.0"])
def test_every_address(certificate: dict[str, str], host: str):
    """On all addresses, URLs have the host that the client used."""
    tls = ["--tls-cert", certificate["cert"], "--tls-key", certificate["key"]]
    child = command("--host", host, "--server-name", SECOND, *tls)
    trust = ssl.create_default_context(cafile=certificate["ca"])
    try:
        assert child.line.startswith(f"agentbay local ready at https://{SECOND}:")
        port = child.line.split()[-1].rpartition(":")[2]
        for address in (own_address(), "localhost", *(["[::1]"] if host == "::" else [])):
            url = f"https://{address}:{port}"
            with AgentBay(KEY, cfg=Config(endpoint=url), verify=certificate["ca"]) as bay, bay.session() as session:
                for found in session.resource_url, session.link_url, session.get_link("https", 30150).unwrap().data:
                    assert found.startswith(url + "/")
                assert session.ws_url.startswith(f"wss://{address}:{port}/")
                assert session.code.run_code("print(6 * 7)", "python", stream_beta=True).result == "42\n"
        wire = Wire(f"https://{own_address()}:{port}")
        wire.http = httpx.Client(base_url=wire.url, verify=trust, trust_env=False, timeout=60)
        with wire.http:
            for headers, status in (
                ({"host": SECOND}, 200),
                ({"host": f"{NAME.upper()}:1234"}, 200),
                ({"host": f"{SECOND}:77", "origin": f"https://{SECOND}:77"}, 200),
                ({"host": SECOND, "origin": f"https://{SECOND}.evil.example"}, 403),
                ({"host": SECOND, "origin": "https://198.51.100.7"}, 403),
                ({"host": "evil.example"}, 403),
                ({"host": f"evil.example:{port}", "origin": f"https://evil.example:{port}"}, 403),
                ({"host": "0.0.0.0"}, 403),
                ({"host": "198.51.100.7"}, 403),
            ):
                assert wire.http.get("/healthz", headers=headers).status_code == status, headers
            wire.http.headers["host"] = f"{SECOND}:77"  # as behind a forwarded port
            made = wire.data("CreateMcpSession")
            assert made["WsUrl"].startswith(f"wss://{SECOND}:77/ws/")
            assert wire.data("GetLink", SessionId=made["SessionId"], Port=30150)["Url"].startswith(
                f"wss://{SECOND}:77/"
            )
        assert child.send(signal.SIGTERM) == 0
    finally:
        child.release()


def test_streams_over_tls(certificate: dict[str, str]):
    """WebSockets too go under TLS."""

    async def body(url: str) -> None:
        async with AsyncAgentBay(KEY, cfg=Config(endpoint=url), verify=certificate["ca"]) as bay, bay.session() as one:
            terminal = await one.pty.create(cols=80, rows=24)
            await terminal.send_input("echo $((40+2))\n")
            seen = b""
            async for piece in terminal:
                seen += piece
                if b"42" in seen:
                    break

    with command("--tls-cert", certificate["cert"], "--tls-key", certificate["key"]) as child:
        asyncio.run(asyncio.wait_for(body(child.line.split()[-1]), PATIENCE))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--host", NAME], "--tls-cert and --tls-key"),
        (["--host", "0.0.0.0"], "--host 0.0.0.0 would serve other machines in the clear"),
        (["--host", "::"], "--tls-cert and --tls-key"),
        (["--host", ""], "--host: '' is no host"),
        (["--server-name", "a:80"], "--server-name: must be a name or an address"),
        (["--host", NAME, "--tls-cert", "{cert}"], "one of them is missing"),
        (["--model-url", "http://127.0.0.1:1/v1"], "--model-url and --model belong together"),
        (["--model-url", "https://anna:secret@m.test/v1", "--model", "m"], "--model-url: must be http:// or https://"),
        (["--model", "name"], "--model-url and --model belong together"),
        (["--tls-cert", "/none", "--tls-key", "{key}"], "--tls-cert /none cannot be read: No such file"),
        (["--tls-cert", "{key}", "--tls-key", "{key}"], "are no certificate and its key"),
        (["--host", "no.such.host.invalid", "--tls-cert", "{cert}", "--tls-key", "{key}"], "no.such.host.invalid"),
        (["--socket", "/tmp/x", "--port", "80"], "--socket stands alone"),
        (["--socket", "/none/x"], "--socket /none/x cannot be used: No such file"),
        (["--socket", "/tmp/" + "x" * 200], "cannot be used"),
        (["--session-memory", "2 apples"], "--session-memory: '2 apples' is no size; write bytes, or KiB, MiB"),
        (["--session-memory", "0"], "--session-memory: '0' is no size"),
        (["--max-sessions", "0"], "--max-sessions: must be a whole number, at least 1, not '0'"),
        (["--session-cpus", "-1"], "--session-cpus: must be a number of processors"),
        (["--drain", "nan"], "--drain: must be seconds"),
    ],
)
def test_invalid_options(certificate: dict[str, str], arguments: list[str], said: str):
    """Unsafe and malformed options are refused before anything listens."""
    given = [argument.format(**certificate) for argument in arguments]
    with pytest.raises(ConfigurationError, match=re.escape(said)), listening.listen(parse_arguments(given, "x")):
        pass


@pytest.mark.parametrize("host", [NAME, "0.0.0.0"])
def test_other_machines_need_a_chosen_key(certificate: dict[str, str], host: str):
    """A key that only this machine's files hold is no key for other machines."""
    arguments = ["--host", host, "--tls-cert", certificate["cert"], "--tls-key", certificate["key"]]
    assert "Set AGENTBAY_API_KEY" in command(*arguments, key="").failure()


def test_sizes():
    """Sizes are bytes, or have a unit of 1024."""
    assert [parse_size(text) for text in ("1", "512MiB", "1.5gib", "2 KiB")] == [1, 512 << 20, 3 << 29, 2048]
    assert parse_arguments([], "x") == Options()
    assert parse_arguments(["--allow-host", "a.example", "--allow-host", "b.example:8"], "x").allow_host[1].ports == (
        8,
    )
    with pytest.raises(ConfigurationError, match="--isolation: must be auto or "):
        parse_arguments(["--isolation", "some"], "x")


def test_a_unix_socket(tmp_path: Path):
    """On a unix socket, the runtime serves its user only, through httpx's own transport."""
    path = tmp_path / "agentbay.sock"
    for killed in True, False:
        with command("--socket", str(path), "--state-dir", str(tmp_path / "state")) as child:
            assert child.line == f"agentbay local ready at unix:{path}\n"
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            assert "somebody listens there" in command("--socket", str(path)).failure()
            for other, kind in ((tmp_path, "directory"), (Path(__file__), "file")):
                assert f"it is a {kind}, and a name that is free is wanted" in command("--socket", str(other)).failure()
            with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), timeout=PATIENCE) as http:
                bay = AgentBay(KEY, cfg=Config(endpoint="http://localhost"), http_client=http)
                with bay.session() as session:
                    assert session.command.run("echo through").output == "through\n"
                    assert session.file_system.write_file("x", "y").success
            child.send(signal.SIGKILL if killed else signal.SIGTERM)
            assert path.exists() is killed  # and the next one takes it over


def slow_call(wire: Wire, session: str, marker: str) -> dict[str, object]:
    other = Wire(wire.url)
    with other.http:
        return other.sh(session, f": {marker}; until [ -e go ]; do sleep 0.05; done; echo done")


@contextmanager
def stopping(state_dir: Path, drain: str) -> Iterator[tuple[Child, Wire, Future[dict[str, object]]]]:
    """Yield a runtime that drains a call, which waits for a file "go"."""
    marker = unique_seconds()
    with embedded(state_dir, "--drain", drain) as (child, wire), ThreadPoolExecutor(1) as pool:
        session = wire.create()
        call = pool.submit(slow_call, wire, session, marker)
        assert eventually(lambda: processes_with(marker) != [])
        child.process.send_signal(signal.SIGTERM)
        yield child, wire, call
        assert child.process.wait(PATIENCE) == 0
        assert processes_with(marker) == []
        assert "Traceback" not in child.standard_error()


def refused(wire: Wire) -> tuple[int, str]:
    try:
        wire.data("ListSession")
    except Refused as error:
        return error.status, error.code
    return 200, ""


def test_drain(tmp_path: Path):
    """While it drains, the runtime refuses new calls and finishes those under way."""
    with stopping(tmp_path, "600") as (_, wire, call):
        assert eventually(lambda: refused(wire) == (503, "ServiceUnavailable"))
        (home,) = tmp_path.glob("sessions/*/home")
        (home / "go").touch()
        assert call.result(PATIENCE)["stdout"] == "done\n"


def test_drain_time_limit(tmp_path: Path):
    """Calls that take too long are ended with their sessions."""
    with stopping(tmp_path, "0.5") as (_, _, call), pytest.raises(Refused):
        call.result(PATIENCE)


def test_a_second_signal(tmp_path: Path):
    """Told twice, it waits for nobody."""
    with stopping(tmp_path, "600") as (child, wire, call):
        assert eventually(lambda: refused(wire) == (503, "ServiceUnavailable"))
        child.process.send_signal(signal.SIGINT)
        with pytest.raises(Refused):
            call.result(PATIENCE)


def test_logs_hold_no_secret(tmp_path: Path):
    """The debug log has no key, token, command or file."""
    with command("--log-level", "debug", "--log-format", "json", "--state-dir", str(tmp_path)) as child:
        wire = Wire(child.url)
        with wire.http:
            context = wire.data("GetContext", Name="names", AllowCreate="true")["Id"]
            made = wire.data("CreateMcpSession", ImageId="code_latest")
            session = made["SessionId"]
            link = wire.data("GetLink", SessionId=session, ProtocolType="https", Port=30150)["Url"]
            put = wire.data("GetContextFileUploadUrl", ContextId=context, FilePath="/p/secret-name")["Url"]
            assert wire.http.get(link).status_code == 502
            assert wire.http.put(put, content=b"secret-content").status_code == 200
            assert wire.http.get(put).status_code >= 400
            wire.sh(session, "echo secret-command >&2; exit 3", envs={"secret-variable": "x"})
            wire.tool(session, "write_file", path="/secret-place/x", content="secret-content")
            wire.http.post("/", data={"Action": "ListSession", "Authorization": "Bearer secret-attempt"})
            wire.http.post(made["LinkUrl"] + "/callTool", json={}, headers={"x-access-token": "secret-attempt"})
        assert child.send(signal.SIGTERM) == 0
        lines = [json.loads(line) for line in child.standard_error().splitlines()]
    assert {"time", "level", "logger", "message"} <= set(lines[0])
    assert {f"created {session}", f"ended {session}"} <= {line["message"] for line in lines}
    assert any(re.search(r"action=GetLink\b", line["message"]) for line in lines)
    text = json.dumps(lines)
    tokens = [KEY, made["Token"], *re.findall(r"authcode=([^&]+)", made["ResourceUrl"])]
    tokens += [link.split("/")[4], put.split("/")[4], "secret-"]
    assert [token for token in tokens if token in text] == []
