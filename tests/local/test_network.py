"""Which network sessions have, and runtimes that isolate less, over the bare wire."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.local.network.servers import serving
from tests.local.raw import Child, Refused, Wire, embedded
from tests.local.traces import PATIENCE

GET = "curl -sS -m 60 --noproxy '' {} http://localhost:{}/; true"


def test_networks_of_sessions(wire: Wire):
    """A policy id names a network, and an unknown one is refused."""
    assert wire.http.get("/healthz").json()["network"] == "proxy"
    devices = {}
    for policy in ("", "none", "proxy", "host"):
        with wire.session(McpPolicyId=policy) as session:
            assert wire.data("GetSessionDetail", SessionId=session)["PolicyId"] == (policy or "proxy")
            devices[policy] = (
                wire.stdout(session, "cat /proc/net/dev").count(":"),
                wire.stdout(session, "echo $HTTP_PROXY"),
            )
    assert devices["none"] == (1, "\n")
    assert devices["proxy"] == devices[""] == (1, "http://127.0.0.1:3128\n")
    here = Path("/proc/net/dev").read_text().count(":")
    assert devices["host"] == (here, "\n")
    with pytest.raises(Refused, match="none, proxy, host") as refused:
        wire.create(McpPolicyId="policy-of-the-cloud")
    assert refused.value.code == "PolicyNotSupported.Local"


def test_allowed_hosts():
    """Commands and code reach allowed hosts only, and never the runtime."""
    with serving() as port, serving() as other:
        options = ["--allow-host", f"localhost:{port}", "--allow-host", "127.0.0.1:{}"]
        with embedded(None, *options[:2]) as (_, wire), wire.session(ImageId="code_latest") as session:
            assert wire.stdout(session, GET.format("-x $http_proxy", port)).startswith("GET /")
            refused = wire.stdout(session, GET.format("-x $http_proxy", other))
            assert refused.startswith(
                f"agentbay: localhost:{other} is not allowed; to allow it, start the runtime with"
            )
            code = (
                "import os, urllib.request as u; os.environ['no_proxy'] = ''\n"
                f"print(u.urlopen('http://localhost:{port}/').read().decode()[:5])"
            )
            reply = wire.tool(session, "run_code", language="python", code=code, timeout_s=60)
            assert "GET /" in json.dumps(reply), reply
            control = wire.url.rsplit(":", 1)[1]
            assert "is not allowed" in wire.stdout(session, GET.format("-x $http_proxy", control))


def test_the_default_of_a_runtime():
    """The network `none` reaches nothing, and `host` everything, with a warning."""
    with serving() as port:
        with embedded(None, "--network", "none") as (_, wire), wire.session() as session:
            assert wire.http.get("/healthz").json()["network"] == "none"
            assert wire.sh(session, f"curl -sS http://127.0.0.1:{port}/")["exit_code"] == 7
        with embedded(None, "--network", "host") as (child, wire):
            with wire.session() as session:
                assert wire.stdout(session, f"curl -sS http://127.0.0.1:{port}/").startswith("GET /")
            assert child.close_stdin() == 0
            assert "WARNING: with --network host, session code reaches all that listens" in child.standard_error()


def test_without_isolation(tmp_path):
    """Without isolation, the tools work and the runtime warns."""
    with embedded(None, "--isolation", "none") as (child, wire):
        assert wire.http.get("/healthz").json() == {"status": "ok", "isolation": "none", "network": "host"}
        with wire.session(ImageId="code_latest") as session:
            assert wire.data("GetSessionDetail", SessionId=session)["PolicyId"] == "host"
            assert wire.stdout(session, "id -u; cd ~; echo hello > a.txt").split() == [str(os.geteuid())]
            assert wire.text(session, "read_file", path="/home/wuying/a.txt") == "hello\n"
            reply = wire.tool(session, "run_code", language="python", code="print(6 * 7)", timeout_s=60)
            assert "42" in json.dumps(reply)
            wire.data("PauseSessionAsync", SessionId=session)
            wire.data("ResumeSessionAsync", SessionId=session)
            assert wire.stdout(session, "echo again") == "again\n"
        with pytest.raises(Refused, match="not isolated"):
            wire.create(McpPolicyId="none")
        assert child.close_stdin() == 0
        assert "WARNING: --isolation none: session code can do all that" in child.standard_error()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--network", "proxy", "--isolation", "none"], "--network proxy takes namespaces"),
        (["--network", "lan"], "--network: must be none or proxy or host, not 'lan'"),
        (["--allow-host", "https://example.test"], "--allow-host: 'https://example.test' is not HOST or HOST:PORT"),
        (["--isolation", "some"], "--isolation: must be auto or landlock or none"),
    ],
)
def test_bad_options(options, said):
    """What cannot be is refused with its name and what it may be."""
    with Child(["-m", "agentbay.local", *options]) as child:
        assert child.process.wait(PATIENCE) != 0
        assert said in child.standard_error()
