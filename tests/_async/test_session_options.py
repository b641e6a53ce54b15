"""Variables, directory, hosts and writable directories of a new session, and services that cannot give them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from urllib.parse import parse_qs

import pytest

from agentbay import AsyncAgentBay, CreateSessionParams, InvalidRequestError, NotSupportedError
from tests.local.network.servers import serving
from tests.scripted import NOT_FOUND, Service, ok, tool_says

from .calls import client

CREATED = ok({"Success": True, "SessionId": "session-new"})
GET = "curl -sS -m 20 --noproxy '' -x $http_proxy http://{}/ 2>&1"


async def test_variables_reach_everything(bay: AsyncAgentBay) -> None:
    """Commands, background processes and code have the variables, and PATH may be added to."""
    params = CreateSessionParams(envs={"WHO": "a b'$c", "PATH": "/extra:$PATH"}, image_id="code_latest")
    async with bay.session(params) as session:
        assert (await session.command.run('printf %s "$WHO"; echo; echo $PATH')).output.startswith("a b'$c\n/extra:/")
        await (await session.command.start('printf %s "$WHO" > started')).wait()
        assert (await session.file_system.read_file("started")).content == "a b'$c"
        assert "a b'$c" in (await session.code.run_code("import os; print(os.environ['WHO'])", "python")).result
        assert (await session.env.get(["WHO"])).envs == {"WHO": "a b'$c"}


async def test_a_directory_to_start_in(bay: AsyncAgentBay) -> None:
    """Commands, code and relative paths of files start there, and `~` stays the home."""
    for wanted, seen in (("work/here", "/home/wuying/work/here"), ("/tmp/there", "/tmp/there")):
        async with bay.session(CreateSessionParams(cwd=wanted, image_id="code_latest")) as session:
            assert (await session.command.run("pwd; echo x > made")).output == f"{seen}\n"
            assert (await session.command.run("pwd", cwd="sub")).exit_code != 0
            assert (await session.command.run("mkdir sub && cd sub && pwd")).output == f"{seen}/sub\n"
            assert (await session.command.run("pwd", cwd="sub")).output == f"{seen}/sub\n"
            assert (await session.file_system.read_file("made")).content == "x\n"
            await session.file_system.write_file("~/at-home", "h")
            assert (await session.command.run("cat ~/at-home")).output == "h"
            for language, code in (("python", "import os; print(os.getcwd())"), ("javascript", "process.cwd()")):
                assert seen in (await session.code.run_code(code, language)).result


async def test_new_directories(bay: AsyncAgentBay) -> None:
    """Commands and file operations write them, and nothing else of the root."""
    params = CreateSessionParams(writable=["/app", "/logs", "/testbed", "/tests"], cwd="/app/src")
    async with bay.session(params) as session:
        assert (await session.command.run("pwd; echo 1 > /logs/a; cp /logs/a /testbed/b")).output == "/app/src\n"
        assert "Read-only" in (await session.command.run("touch /x")).output
        for path in ("/app/c", "/tests/deep/d", "relative"):
            assert (await session.file_system.write_file(path, path)).success
            assert (await session.file_system.read_file(path)).content == path
        assert not (await session.file_system.write_file("/other", "")).success
        assert (await session.command.run("cat /testbed/b /app/src/relative")).output == "1\nrelative"


@pytest.mark.skipif(os.geteuid() != 0, reason="an overlay over the machine's files takes root")
async def test_the_whole_root(bay: AsyncAgentBay) -> None:
    """With "/" the session writes what belongs to the system, for itself alone."""
    async with bay.session(CreateSessionParams(writable=["/"])) as session:
        made = await session.command.run(
            "mkdir /app && echo '#!/bin/sh' >/usr/local/bin/made-here && echo x >>/etc/hosts"
        )
        assert made.success, made.error_message
        assert (await session.file_system.write_file("/srv/new/file", "f")).success
    assert not Path("/usr/local/bin/made-here").exists()


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"writable": ["relative"]}, "InvalidParameter.Writable"),
        ({"writable": ["/proc/sys"]}, "InvalidParameter.Writable"),
        ({"cwd": "/usr/share/new"}, "InvalidParameter.Cwd"),
        ({"network": ["not a host"]}, "InvalidParameter.Network"),
        ({"network": ["elsewhere.example"]}, "NetworkNotSupported.Local"),
        ({"network": [], "policy_id": "host"}, "NetworkNotSupported.Local"),
    ],
)
async def test_what_cannot_be_given_is_refused(bay: AsyncAgentBay, options: dict[str, object], code: str) -> None:
    """A wrong option leaves no session, and its error names it."""
    before = (await bay.list()).total_count
    refused = await bay.create(CreateSessionParams(**options))  # type: ignore[arg-type]
    assert isinstance(refused.exception, InvalidRequestError)
    assert refused.exception.code == code
    assert next(iter(options)) in refused.error_message
    assert (await bay.list()).total_count == before


async def test_a_network_of_its_own() -> None:
    """A session reaches the hosts that it names, if the runtime allows them, and no others."""
    with serving() as first, serving() as second:
        allowed = [f"localhost:{first}", f"localhost:{second}"]
        async with AsyncAgentBay.local(allow_hosts=allowed) as bay:
            async with bay.session(CreateSessionParams(network=allowed[:1])) as session:
                assert (await session.command.run(GET.format(allowed[0]))).output.startswith("GET /")
                assert "may reach" in (await session.command.run(GET.format(allowed[1]))).output
            async with bay.session(CreateSessionParams(network=[])) as session:
                assert "may reach" in (await session.command.run(GET.format(allowed[0]))).output
            async with bay.session() as session:
                assert (await session.command.run(GET.format(allowed[1]))).output.startswith("GET /")


async def test_variables_on_another_service() -> None:
    """A service that does not know the option gets the variables by the tool for them."""
    with Service({"CreateMcpSession": CREATED, "CallMcpTool": tool_says("True")}) as service:
        async with client(service.url) as bay:
            made = await bay.create(CreateSessionParams(envs={"TOKEN": "s3cret"}))
            assert made.success, made.error_message
    create, call = service.requests
    assert json.loads(parse_qs(create.body.decode())["SessionOptions"][0]) == {"Envs": {"TOKEN": "s3cret"}}
    assert json.loads(parse_qs(call.body.decode())["Args"][0]) == {"envs": [{"key": "TOKEN", "value": "s3cret"}]}


@pytest.mark.parametrize(
    "options", [{"cwd": "/work"}, {"network": []}, {"writable": ["/app"]}, {"user": "root"}, {"entrypoint": []}]
)
async def test_another_service_cannot(options: dict[str, object]) -> None:
    """What a service cannot give is an error, and the session that it has made is deleted."""
    with Service({"CreateMcpSession": CREATED, "DeleteSessionAsync": ok(), "GetSessionDetail": NOT_FOUND}) as service:
        async with client(service.url) as bay:
            made = await bay.create(CreateSessionParams(**options))  # type: ignore[arg-type]
            assert isinstance(made.exception, NotSupportedError)
            assert made.session is None
    assert service.count("DeleteSessionAsync") == 1


async def test_variables_that_cannot_be_set() -> None:
    """If the tool refuses the variables, no session is left."""
    behaviour = {"CreateMcpSession": CREATED, "DeleteSessionAsync": ok(), "GetSessionDetail": NOT_FOUND}
    with Service({**behaviour, "CallMcpTool": tool_says("no", is_error=True)}) as service:
        async with client(service.url) as bay:
            assert not (await bay.create(CreateSessionParams(envs={"A": "b"}))).success
    assert service.count("DeleteSessionAsync") == 1


async def test_values_are_in_no_repr() -> None:
    """The variables of a session are shown by name."""
    assert "s3cret" not in repr(CreateSessionParams(envs={"TOKEN": "s3cret"}))
    assert "TOKEN" in repr(CreateSessionParams(envs={"TOKEN": "s3cret"}))
