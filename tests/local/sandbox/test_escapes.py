"""The attempts of `attempts.py` for two users, and tricks with the file API."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import h11
import pytest

from agentbay.local.sandbox.service.manager import FileOperationFailed
from agentbay.local.sandbox.shared.file_protocol import ListDirectory, MovePath, ReadFile, RemovePath, WriteFile
from tests.local.sandbox.attempts import ATTEMPTS
from tests.local.sandbox.test_lifecycle import SOURCE
from tests.local.traces import PATIENCE
from tests.local.users import copied_for_everyone, python_for_everyone
from tests.once import once

PROGRAM = Path(__file__).with_name("trials.py")
ROOT = os.geteuid() == 0
USERS = ["root", "ordinary"] if ROOT else ["ordinary"]
# This machine does not have the device, system call or protocol that the attempt needs.
ABSENT = {"closed ENOSYS", "closed ENOENT", "closed EAFNOSUPPORT"}
# what even root may lack where it is in a container
PERHAPS_DENIED_TO_ROOT = {
    "raise a limit",
    "spare oneself from the memory killer",
    "the machine's disk",
    "make a device",
}

Table = dict[str, dict[str, str]]
ALONE = 600  # seconds that all attempts may take


@pytest.fixture(scope="session")
def tables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Table]:
    """The result of every attempt, by user and name.

    They run one after the other, since the signal of one would hit all.
    """
    found: dict[str, Table] = once(tmp_path_factory, "escapes", lambda _: {user: made(user) for user in USERS})
    return found


def made(user: str) -> Table:
    """Make every attempt as `user`, or return nothing without a Python for that user."""
    directory = Path(f"/tmp/agentbay-test-{os.getpid()}-{time.monotonic_ns()}")
    directory.mkdir(mode=0o755)
    copied = copied_for_everyone(Path(SOURCE), PROGRAM.parent, Path(h11.__file__).parent)
    command = [sys.executable]
    if user == "ordinary" and ROOT:
        python = python_for_everyone()
        if python is None:
            return {}
        os.chown(directory, 12345, 12345)
        command = ["setpriv", "--reuid=12345", "--regid=12345", "--clear-groups", python]
    try:
        done = subprocess.run(
            [
                *command,
                str(copied / PROGRAM.parent.name / PROGRAM.name),
                str(copied / Path(SOURCE).name),
                str(directory),
            ],
            env={"PATH": os.environ["PATH"], "AGENTBAY_SECRET": "host-secret"},
            capture_output=True,
            timeout=ALONE,
            check=False,
        )
    finally:
        shutil.rmtree(copied)
        shutil.rmtree(directory)
    assert done.stderr == b""
    return {row["name"]: row for row in json.loads(done.stdout)}


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("name", [attempt.name for attempt in ATTEMPTS])
def test_attempt(tables, user, name):
    """Each attempt fails in a sandbox, and succeeds in a control without the protection that stops it."""
    if not tables[user]:
        pytest.skip("no Python 3.11 that other users can start")
    row = tables[user][name]
    assert row["inside"].startswith("closed"), row
    control = tables["root"][name]["control"] if row["control"].startswith("skipped") and ROOT else row["control"]
    if control.startswith("skipped"):
        pytest.skip(f"refused; to show it open {control.removeprefix('skipped: ')}")
    if control in ABSENT or (name in PERHAPS_DENIED_TO_ROOT and control in ("closed EPERM", "closed EACCES")):
        pytest.skip(f"refused; not to be shown open on this machine: {control}")
    assert control == "OPEN", row


@pytest.mark.parametrize("user", USERS)
def test_most_are_shown_open(tables, user):
    """Nearly all attempts are possible on this machine without their layer."""
    if not tables[user]:
        pytest.skip("no Python 3.11 that other users can start")
    shown = [row for row in tables[user].values() if row["control"] == "OPEN"]
    assert len(shown) >= (55 if user == "root" else 40)


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """Make a world-writable directory of the host with a secret in it."""
    directory = tmp_path / "outside"
    directory.mkdir()
    directory.chmod(0o777)
    (directory / "secret").write_text("host-secret")
    (directory / "secret").chmod(0o666)
    return directory


async def test_file_api_and_planted_links(factory, outside):
    """Reading, writing, listing, moving and removing through planted links reaches nothing of the host."""
    sandbox = await factory.make()
    await sandbox.run(["bash", "-c", f"ln -s {outside}/secret file; ln -s {outside} directory; ln -s / root"])
    home = factory.directory / "sandbox-1" / "home"
    # without the layer: whoever opens the same path from the host side is led out
    assert (home / "file").read_text() == "host-secret"
    assert list((home / "directory").iterdir()) == [outside / "secret"] or (home / "directory/secret").exists()
    for request in ReadFile("file"), ReadFile("directory/secret"), ListDirectory("directory"):
        with pytest.raises(FileOperationFailed, match="No such file"):
            await sandbox.run_file_operation(request)
    with pytest.raises(FileOperationFailed):
        await sandbox.run_file_operation(ReadFile(f"root{outside}/secret"))
    with pytest.raises(FileOperationFailed):
        await sandbox.run_file_operation(MovePath(f"{outside}/secret", "mine"))
    with pytest.raises(FileOperationFailed):
        await sandbox.run_file_operation(RemovePath("directory/secret", recursive=True))
    # writing follows links, as a program would, and ends where they lead inside the sandbox, or nowhere
    for path in "file", "directory/new":
        try:
            await sandbox.run_file_operation(WriteFile(path), input=b"stolen")
        except FileOperationFailed:
            continue
    assert (outside / "secret").read_text() == "host-secret"
    assert sorted(path.name for path in outside.iterdir()) == ["secret"]


SWAP = """
import ctypes, os
libc = ctypes.CDLL(None)
os.mkdir("a"), os.symlink({outside!r}, "b")
while True:
    libc.renameat2(-100, b"a", -100, b"b", 2)  # RENAME_EXCHANGE: neither is missing at any moment
"""


async def test_file_api_and_links_swapped_in_a_race(factory, outside):
    """A directory that becomes a link between check and open (TOCTOU) leads nowhere."""
    sandbox = await factory.make()
    swapping = asyncio.create_task(sandbox.run(["python3", "-c", SWAP.format(outside=str(outside))]))
    home = factory.directory / "sandbox-1" / "home"
    while not os.path.lexists(home / "b"):
        await asyncio.sleep(0.02)
    for number in range(100):
        try:
            await sandbox.run_file_operation(WriteFile(f"a/{number}"), input=b"x")
        except FileOperationFailed:
            continue
    assert sorted(path.name for path in outside.iterdir()) == ["secret"]
    deadline = time.monotonic() + PATIENCE
    while not (outside / "escaped").exists() and time.monotonic() < deadline:  # the control
        try:
            if not (home / "a").is_symlink():
                (home / "a" / "escaped").write_text("x")
        except OSError:
            continue
    assert (outside / "escaped").exists()
    swapping.cancel()


async def test_file_api_and_links_to_proc(factory):
    """Links into /proc reveal no secret, and do no harm."""
    sandbox = await factory.make()
    names = ["self/environ", "1/environ", "self/mem", "1/mem", "kmsg", *(f"self/fd/{fd}" for fd in range(20))]
    await sandbox.run(["bash", "-c", "for name; do ln -s /proc/$name ${name//\\//-}; done; mkfifo pipe", "-", *names])
    for name in [*(name.replace("/", "-") for name in names), "pipe"]:
        for request, content in (ReadFile(name), None), (WriteFile(name, append=True), b"x"):
            try:
                _, read = await sandbox.run_file_operation(request, input=content, timeout=PATIENCE)
            except FileOperationFailed:
                continue
            assert b"secret" not in read
    assert (await sandbox.run(["echo", "alive"])).stdout == b"alive\n"
