"""Packages of Python in a session: what one program installs, every other one finds."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agentbay import AsyncAgentBay, AsyncSession
from tests.packages import PIP, write_source_tree, write_wheel

WHERE = "import sys; print(sys.executable.rpartition('/')[0], sys.prefix, sys.version)"
PIPS = ("pip", "pip3", "python -m pip", "python3 -m pip")


@pytest.fixture
async def session(bay: AsyncAgentBay, tmp_path: Path) -> AsyncIterator[AsyncSession]:
    """A session of its own, with wheels in its home."""
    for version in ("1.0", "2.0"):
        write_wheel(tmp_path / "wheels", "sixpence", version)
    for name in ("cycler", "traitlets"):
        write_wheel(tmp_path / "wheels", name, "99.0")
    write_source_tree(tmp_path / "tree", "tree", "3.0")
    async with bay.session() as session:
        await session.file_system.push(tmp_path, "/home/wuying")
        yield session


async def value(session: AsyncSession, code: str, context: str | None = None) -> str | None:
    result = await session.code.run_code(code, context=context or "python")
    assert result.success, result
    return result.result


async def output(session: AsyncSession, command: str) -> str:
    result = await session.command.run(command, timeout_ms=60_000)
    assert result.exit_code == 0, result
    return result.output.strip()


async def test_one_environment(session: AsyncSession) -> None:
    """Every name of Python, in commands, login shells, cells and their children, is one interpreter and prefix."""
    cell = await session.code.run_code(WHERE, "python")
    code = f"import subprocess, sys; print(subprocess.check_output([sys.executable, '-c', {WHERE!r}], text=True))"
    child = await session.code.run_code(code, "python")
    jupyter = await session.code.run_code(WHERE, "jupyter:python3", 120)
    places = {"".join(ran.logs.stdout).strip() for ran in (cell, child, jupyter)}
    for command in ("python", "python3", "bash -lc 'exec \"$@\"' - python"):
        places.add(await output(session, f'{command} -c "{WHERE}"'))
    assert len(places) == 1, places
    listed = {await output(session, f"{pip} list --format=freeze --disable-pip-version-check") for pip in PIPS}
    assert len(listed) == 1


async def test_a_cell_installs(session: AsyncSession) -> None:
    """The first cell of a session installs and imports; its children and commands find module and script."""
    assert await value(session, f"%pip {PIP} sixpence==1.0\nimport sixpence\nsixpence.VERSION") == "'1.0'"
    code = "subprocess.check_output([sys.executable, '-c', 'import sixpence; sixpence.main()'], text=True)"
    assert await value(session, f"import subprocess, sys\n{code}") == "'version 1.0\\n'"
    assert await output(session, "sixpence") == "version 1.0"
    assert await output(session, "python3 -c 'import sixpence; sixpence.main()'") == "version 1.0"


async def test_a_command_installs(session: AsyncSession) -> None:
    """A kernel that runs already imports what a command has installed, by wheel or as an editable tree."""
    missing = await session.code.run_code("import sixpence", "python")
    assert missing.error is not None
    assert missing.error.name == "ModuleNotFoundError"
    await output(session, f"pip {PIP} sixpence==1.0")
    assert await value(session, "import sixpence; sixpence.VERSION") == "'1.0'"
    await output(session, f"pip {PIP} --no-build-isolation -e ./tree")
    assert await value(session, "import tree; tree.__file__") == "'/home/wuying/tree/tree.py'"


async def test_upgrade_and_uninstall(session: AsyncSession) -> None:
    """A newer version replaces the older one; pip shows and uninstalls it."""
    await value(session, f"%pip {PIP} sixpence==1.0")
    await output(session, f"pip {PIP} --upgrade sixpence")
    assert "Version: 2.0" in await output(session, "pip show sixpence")
    assert await value(session, "import sixpence; sixpence.VERSION") == "'2.0'"
    await value(session, "%pip uninstall -y sixpence")
    assert (await session.command.run("python -c 'import sixpence'")).exit_code == 1
    assert (await session.command.run("pip show sixpence")).exit_code == 1


async def test_what_the_runtime_has_can_be_replaced(session: AsyncSession) -> None:
    """A version in the session comes before that of the runtime, also in kernels that run or are started later."""
    former = await output(session, "python -c 'import cycler; print(cycler.__version__)'")
    assert await value(session, "1") == "1"
    await output(session, f"pip {PIP} cycler==99.0")
    assert await output(session, "python -c 'import cycler; print(cycler.VERSION)'") == "99.0"
    assert await value(session, "import cycler; cycler.VERSION") == "'99.0'"
    context = await session.code.create_context("python")
    assert await value(session, "import cycler; cycler.VERSION", context.name) == "'99.0'"
    await session.code.restart_context("python")
    assert await value(session, "import cycler; cycler.VERSION") == "'99.0'"
    await output(session, "pip uninstall -y cycler")
    assert await output(session, "python -c 'import cycler; print(cycler.__version__)'") == former


async def test_source_trees_and_user_installs(session: AsyncSession) -> None:
    """A source tree is built in isolation; --user installs where everything else goes."""
    await value(session, f"%pip {PIP} ./tree")
    assert await value(session, "import tree; tree.VERSION") == "'3.0'"
    await value(session, f"%pip {PIP} --user sixpence==1.0")
    assert await value(session, "import sixpence; sixpence.VERSION") == "'1.0'"
    assert await output(session, "sixpence; pip uninstall -y sixpence | tail -1; ls ~/.local 2>&1 | wc -l") == (
        "version 1.0\n  Successfully uninstalled sixpence-1.0\n1"
    )


async def test_a_package_that_breaks_the_kernel(session: AsyncSession) -> None:
    """A kernel that cannot start says which package of the session is the reason; without it the next one starts."""
    await output(session, f"pip {PIP} --no-deps traitlets==99.0")
    await session.code.restart_context("python")
    broken = await session.code.run_code("1", "python")
    assert "/opt/session-python/lib" in broken.error_message
    assert "traitlets" in broken.error_message
    await output(session, "pip uninstall -y traitlets")
    assert await value(session, "1") == "1"


async def test_commands_have_the_packages_of_cells(session: AsyncSession) -> None:
    """A script imports the same numpy as a cell."""
    assert await value(session, "import numpy; numpy.__file__") == repr(
        await output(session, "python3 -c 'import numpy; print(numpy.__file__)'")
    )


async def test_a_virtual_environment_in_a_session(session: AsyncSession) -> None:
    """An environment that a user makes there is apart, as everywhere."""
    await output(session, "python -m venv --without-pip apart")
    await output(session, f"pip {PIP} sixpence==1.0")
    assert (await session.command.run("apart/bin/python -c 'import sixpence'")).exit_code == 1
