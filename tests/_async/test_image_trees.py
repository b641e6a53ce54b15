"""Sessions on trees like those of Alpine, Debian and distroless: what each can do, and what it says it lacks."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from agentbay import AsyncAgentBay, CreateSessionParams, FileError, PtyError
from tests.local.images.builds import (
    Built,
    Member,
    busybox_layer,
    directory,
    host_programs,
    member,
    needs_busybox,
    symlink,
    tar,
)

pytestmark = needs_busybox
PROGRAM = Path(__file__).parent.parent / "official_images.py"
HELLO = '#include <stdio.h>\nint main(int n, char **a) { printf("hello %s\\n", n > 1 ? a[1] : "-"); return 0; }\n'
PROGRAMS = ("sh", "bash", "cat", "env", "find", "id", "ls", "mkdir", "sha256sum", "sort", "tar", "wc", "xargs")
TREES = ["alpine:1", "debian:1", "distroless:1"]


def compile_hello(folder: Path, compiler: Sequence[str]) -> Member:
    """A program of the tree's own: /bin/hello."""
    (folder / "hello.c").write_text(HELLO)
    subprocess.run([*compiler, "-o", folder / "hello", folder / "hello.c"], check=True)
    return member("bin/hello", (folder / "hello").read_bytes(), mode=0o755)


@pytest.fixture(scope="module", autouse=True)
async def trees(bay: AsyncAgentBay, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Images: busybox and musl; programs and the C library of this machine; one static program and nothing else."""
    musl, gcc = shutil.which("musl-gcc"), shutil.which("gcc")
    if not musl or not gcc:
        pytest.skip("no musl-gcc or gcc; scripts/test says how to get them")
    folder = tmp_path_factory.mktemp("trees")
    linker = Path("/usr/lib").glob("*-linux-musl/libc.so")
    loader = next(Path("/lib").glob("ld-musl-*")).name
    layers = {
        "alpine:1": busybox_layer(
            directory("lib"),
            member(f"lib/{loader}", next(linker).read_bytes(), mode=0o755),
            compile_hello(folder, [musl]),
            applets=("find", "tar", "wget"),
        ),
        "debian:1": tar(
            directory("tmp", 0o1777),
            directory("usr/bin"),
            symlink("bin", "usr/bin"),
            *host_programs(*PROGRAMS),
            compile_hello(folder, [gcc]),
        ),
        "distroless:1": tar(
            directory("etc"),
            member("etc/passwd", b"nonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin\n"),
            directory("home/nonroot", 0o700),
            directory("tmp", 0o1777),
            directory("bin"),
            compile_hello(folder, [gcc, "-static"]),
        ),
    }
    for name, layer in layers.items():
        config = {"Env": ["PATH=/bin", "FLAVOUR=plain"], **({"User": "65532"} if name == "distroless:1" else {})}
        (folder / "image.tar").write_bytes(Built([layer], config).oci_archive())
        await bay.images.import_file(folder / "image.tar", name=name)


@pytest.fixture(params=TREES)
async def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def test_programs_files_and_code(bay: AsyncAgentBay, name: str) -> None:
    """Every tree runs its programs, serves files and runs Python code, whatever it lacks."""
    async with bay.session(CreateSessionParams(image_id=name)) as session:
        assert (await session.command.run(["hello", "a b"])).output == "hello a b\n"
        assert (await session.command.run("hello you", cwd="/tmp")).output == "hello you\n"
        process = await session.command.start(["hello", "later"])
        assert (await process.wait(), await process.stdout.read()) == (0, "hello later\n")
        files = session.file_system
        assert (await files.write_file("/srv/a b/file.txt", "one\n")).success
        assert (await files.edit_file("/srv/a b/file.txt", [{"oldText": "one", "newText": "two"}])).success
        assert (await files.read_file("/srv/a b/file.txt")).content == "two\n"
        assert [entry.name for entry in (await files.list_directory("/srv")).entries] == ["a b"]
        assert (await files.search_files("/srv", "*.txt")).matches == ["/srv/a b/file.txt"]
        code = "import subprocess; subprocess.run(['hello', 'code'], capture_output=True, text=True).stdout"
        assert (await session.code.run_code(code, "python")).result == "'hello code\\n'"
        envs = (await session.env.get(["FLAVOUR", "PATH"])).envs
        assert (envs["FLAVOUR"], envs["PATH"].split(":")[0]) == ("plain", "/bin")
        assert (await session.env.set({"PATH": "/more:$PATH"})).success
        assert (await session.env.get(["PATH"])).envs == {"PATH": f"/more:{envs['PATH']}"}
        (fork,) = await session.fork()
        assert (await fork.file_system.read_file("/srv/a b/file.txt")).content == "two\n"
        (await fork.delete()).unwrap()


async def test_shells(bay: AsyncAgentBay, name: str) -> None:
    """Terminals run the best shell that there is; a tree without one says so, to terminals and commands."""
    async with bay.session(CreateSessionParams(image_id=name)) as session:
        if name == "distroless:1":
            refused = await session.command.run("hello | hello")
            assert "has no shell (/bin/sh)" in refused.error_message
            with pytest.raises(PtyError, match="has no shell"):
                await session.pty.create()
            async with await session.pty.create(argv=["hello", "terminal"]) as terminal:
                assert b"hello terminal" in await terminal.read_until("terminal")
            return
        assert (await session.command.run("echo a | cat; echo $0")).output.startswith("a\n")
        async with await session.pty.create(echo=False) as terminal:
            await terminal.send_input("echo shell-$((1 + 1)) ${BASH_VERSION:+of bash} end\n")
            seen = await terminal.read_until(" end")
            assert (b"shell-2" in seen, b"of bash" in seen) == (True, name == "debian:1")


async def test_what_is_missing_is_named(bay: AsyncAgentBay, name: str, tmp_path: Path) -> None:
    """Whatever needs a program that a tree lacks names it."""
    async with bay.session(CreateSessionParams(image_id=name)) as session:
        refused = await session.code.run_code("1 + 1", "javascript")
        assert not refused.success
        assert "Node.js 18 or later, which the image of this session has not" in refused.error_message
        assert (await session.command.run(["absent"])).exit_code == 127
        (await session.file_system.write_file("/srv/tree/file", "text")).unwrap()
        if name == "debian:1":
            await session.file_system.pull("/srv/tree", tmp_path / "tree")
            assert (tmp_path / "tree/file").read_text() == "text"
            return
        lacking = "no find of GNU" if name == "alpine:1" else "has no shell"
        with pytest.raises(FileError, match=lacking):
            await session.file_system.pull("/srv/tree", tmp_path / "tree")


@pytest.mark.slow
async def test_the_official_client(bay: AsyncAgentBay, name: str, official: str, tmp_path: Path) -> None:
    """The published client runs commands, files and code on each tree."""
    shell = "no" if name == "distroless:1" else "yes"
    await bay.list()  # begins the runtime
    command = [official, str(PROGRAM), bay.client.settings.url, bay.api_key, name, shell]
    # In a directory of its own, since the published client writes a log where it runs.
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {"ok": True}
