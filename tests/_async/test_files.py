"""Files of a session with any name and any content."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from hypothesis import given, strategies as st

from agentbay import AsyncFileSystem, AsyncSession, FileError, InvalidArgumentError
from agentbay._transport.files import (
    read_changes,
    read_contents,
    read_directory_listing,
    read_edit_diff,
    read_info,
    read_matches,
)
from agentbay._wire.tools import ToolReply
from agentbay.local.sessions.watching.file_changes import diff_snapshots
from tests._async.scripted_files import client_of
from tests.at_once import async_at_once
from tests.scripted import Service, tool_says

NAMES = ["---", "[FILE]", "[DIR] x", "a: b", "new\nline", " blanks ", "ünï", "-rf", "*", "a,b", "'\"$(x)`", "b\udce9b"]
TEXTS = ["", "\n", "---", "a\n---\nb: c\n---\n", "  blanks  \n\n", "no end", "crlf\r\n", "\N{REPLACEMENT CHARACTER}"]


@pytest.mark.parametrize("name", NAMES)
async def test_any_name(files: AsyncFileSystem, name: str) -> None:
    """A file of any name works in every operation."""
    path = f"/home/wuying/d/{name}"
    assert await files.write_file(f"d/{name}", "one two")
    assert [entry.name for entry in (await files.list_directory("d")).entries] == [name]
    assert path in (await files.search_files("d", "*")).matches
    assert (await files.read_multiple_files([f"d/{name}"])).contents == {f"d/{name}": "one two"}
    assert await files.edit_file(f"d/{name}", [{"oldText": "one", "newText": "three"}])
    assert (await files.get_file_info(f"d/{name}")).size == 9
    assert await files.write_file(f"d/{name}", b"\xff\xfe")
    assert (await files.read_file(f"d/{name}", format="bytes")).content == b"\xff\xfe"
    assert await files.move_file(f"d/{name}", f"e {name}")
    assert await files.delete_file(f"e {name}")
    assert (await files.list_directory("d")).entries == []
    assert await files.create_directory(f"d/{name}")
    assert (await files.session.command.run("echo x > made; ls", cwd=f"d/{name}")).stdout == "made\n"


async def test_any_text(files: AsyncFileSystem) -> None:
    """Every text comes back unchanged, singly and in bulk."""
    for number, text in enumerate(TEXTS):
        assert await files.write_file(f"d/{number}", text)
        assert (await files.read_file(f"d/{number}")).content == text
    paths = [f"d/{number}" for number in range(len(TEXTS))]
    read = (await files.read_multiple_files([*paths, "d/none"])).unwrap()
    assert read.contents == dict(zip(paths, TEXTS, strict=True))
    assert list(read.errors) == ["d/none"]


async def test_bytes(files: AsyncFileSystem) -> None:
    """Bytes are written, replaced and appended atomically, keeping permissions."""
    data = bytes(range(256)) * 500
    assert await files.write_file("deep/er/x", data)
    await files.session.command.run("chmod 751 deep/er/x; ln -s deep/er/x link")
    assert await files.write_file("link", data[::-1])
    assert await files.write_file("~/deep/er/x", data, mode="append")
    assert (await files.read_file("deep/er/x", format="bytes")).content == data[::-1] + data
    assert (await files.get_file_info("deep/er/x")).permissions == "751"
    assert [entry.name for entry in (await files.list_directory("deep/er")).entries] == ["x"]
    assert (await files.session.command.run("find / -name '.agentbay-*' 2>/dev/null")).output == ""
    assert await files.write_file("t", "grüße".encode())
    assert (await files.read_file("t")).content == "grüße"


async def test_bytes_that_cannot_be_written(files: AsyncFileSystem) -> None:
    """A failed write names the path and leaves nothing behind."""
    for path in ("/usr/x", "/tmp"):
        result = await files.write_file(path, b"\xff")
        assert isinstance(result.exception, FileError)
        assert path in result.error_message
    assert (await files.session.command.run("find / -name '.agentbay-*' 2>/dev/null")).output == ""


async def test_read_only_files(files: AsyncFileSystem) -> None:
    """A file that may not be written is neither replaced nor edited, also through a link."""
    await files.session.command.run("echo old > kept; chmod 444 kept; ln -s kept link")
    for path in "kept", "link":
        for content in "text", b"\xff":
            for mode in "overwrite", "append":
                result = await files.write_file(path, content, mode)
                assert isinstance(result.exception, PermissionError), (path, content, mode)
        edited = await files.edit_file(path, [{"oldText": "old", "newText": "new"}])
        assert isinstance(edited.exception, PermissionError)
    left = await files.session.command.run("cat kept; stat -c %a kept; ls -A")
    assert left.stdout == "old\n444\nkept\nlink\n"
    assert await files.delete_file("kept")  # that is a change of the directory


async def test_hard_links(files: AsyncFileSystem) -> None:
    """A file with several names stays one file when it is written or edited."""
    await files.session.command.run("echo long content > one; ln one two; chmod 640 one")
    assert await files.write_file("one", "text")
    assert (await files.read_file("two")).content == "text"
    assert await files.write_file("two", b"\xff\xfe")
    assert (await files.read_file("one", format="bytes")).content == b"\xff\xfe"
    assert await files.write_file("two", "a b")
    assert (await files.edit_file("two", [{"oldText": "a", "newText": "long"}])).diff
    assert (await files.read_file("one")).content == "long b"
    left = await files.session.command.run("stat -c '%n %h %a' *; ls -A")
    assert left.stdout == "one 2 640\ntwo 2 640\none\ntwo\n"


async def test_what_is_no_file_is_not_replaced(files: AsyncFileSystem) -> None:
    """Neither text nor bytes take the place of a FIFO or a directory, directly or through a link."""
    await files.session.command.run("mkfifo pipe; mkdir directory; ln -s pipe link")
    for path in "pipe", "link", "directory", "new/":
        for content in "text", b"\xff":
            for mode in "overwrite", "append":
                result = await files.write_file(path, content, mode)
                assert isinstance(result.exception, FileError)
                assert path in result.error_message or "pipe" in result.error_message
    left = await files.session.command.run("stat -c '%n %F' *")
    assert left.stdout == "directory directory\nlink symbolic link\npipe fifo\n"


@pytest.mark.parametrize("content", [bytes(12 << 20), "\N{LATIN SMALL LETTER A WITH DIAERESIS}" * (5 << 20)], ids=type)
async def test_large_contents(shared_session: AsyncSession, content: str | bytes) -> None:
    """What does not fit into one call is written all the same, however it looks in JSON."""
    files = shared_session.file_system
    assert await files.write_file("large", content)
    assert await files.write_file("large", content[:3], mode="append")
    wanted = content + content[:3]  # type: ignore[operator]  # both have one type
    found = await files.read_file("large", format="bytes" if isinstance(content, bytes) else "text")
    assert found.content == wanted
    left = await shared_session.command.run("find / -name '.agentbay-*' 2>/dev/null; rm large")
    assert left.stdout == ""


async def test_what_is_no_text_is_not_read_as_one(files: AsyncFileSystem) -> None:
    """Reading bytes as text fails with the position and a hint."""
    await files.write_file("x", b"text\xff")
    result = await files.read_file("x")
    assert isinstance(result.exception, FileError)
    assert "0xff at position 4" in result.error_message
    assert 'format="bytes"' in result.error_message
    assert "not UTF-8" in (await files.read_multiple_files(["x"])).errors["x"]


@pytest.mark.parametrize("content", [5, True, None, [72, 105]])
async def test_contents_of_another_type(files: AsyncFileSystem, content: Any) -> None:
    """Content that is neither text nor bytes is refused by name."""
    with pytest.raises(TypeError, match=f"content must be text or bytes, not {type(content).__name__}"):
        await files.write_file("number", content)
    assert not await files.get_file_info("number")


async def test_half_a_surrogate_pair(files: AsyncFileSystem) -> None:
    """Text that is no valid Unicode is a failed result."""
    assert isinstance((await files.write_file("x", "half \ud83d")).exception, InvalidArgumentError)


async def test_edits_and_appends_at_once(files: AsyncFileSystem) -> None:
    """Concurrent edits and appends of one file are all in it, by whatever name, of text and of bytes."""
    await files.session.command.run("ln -sfn . here")
    lines = [f"line {number:02}" for number in range(12)]
    assert await files.write_file("busy", "".join(f"{line}=0\n" for line in lines))

    async def edit(number: int) -> Any:
        path = ("busy", "./busy", "here/busy", "~/busy")[number % 4]
        change = {"oldText": f"{lines[number]}=0", "newText": f"{lines[number]}=1"}
        return await files.edit_file(path, [change])

    async def append(number: int) -> Any:
        added: str | bytes = f"added {number:02}\n"
        # bytes that are not UTF-8 are appended by a command of the session
        return await files.write_file("busy", added if number % 2 else b"\xff" + added.encode(), mode="append")

    results = await async_at_once([partial(call, number) for number in range(12) for call in (edit, append)])
    assert all(results)
    text = (await files.read_file("busy", format="bytes")).content.replace(b"\xff", b"").decode()
    expected = [f"{line}=1" for line in lines] + [f"added {number:02}" for number in range(12)]
    assert sorted(text.splitlines()) == sorted(expected)


async def test_edit(files: AsyncFileSystem) -> None:
    """Edits apply in order, all or none, and a dry run changes nothing."""
    await files.write_file("x", "a a\r\nb\n")
    edits = [{"oldText": "a", "newText": "b"}, {"oldText": "b", "newText": "ü"}]
    shown = await files.edit_file("x", edits, dry_run=True)
    assert "-a a" in shown.diff
    assert "+ü a" in shown.diff
    assert (await files.read_file("x")).content == "a a\r\nb\n"
    assert (await files.edit_file("x", edits)).diff == shown.diff
    assert (await files.read_file("x")).content == "ü a\r\nb\n"
    failed = await files.edit_file("x", [{"oldText": "ü", "newText": "u"}, {"oldText": "none", "newText": ""}])
    assert isinstance(failed.exception, FileError)
    assert "none" in failed.error_message
    assert (await files.read_file("x")).content == "ü a\r\nb\n"
    assert isinstance((await files.edit_file("x", [{"old": "a"}])).exception, InvalidArgumentError)
    assert not await files.edit_file("nothing", edits)


async def test_search(files: AsyncFileSystem) -> None:
    """Names match `*` and `?` at any depth, and exclusions are not entered."""
    await files.session.command.run("mkdir -p a/b skip/b; touch a/b/x.py a/y.py skip/b/z.py a/[x].py")
    found = (await files.search_files("~", "*.py", ["skip", "y*"])).matches
    assert found == ["/home/wuying/a/[x].py", "/home/wuying/a/b/x.py"]
    assert (await files.search_files("a", "[x].py")).matches == ["/home/wuying/a/[x].py"]
    assert (await files.search_files("a", "none")).matches == []
    assert isinstance((await files.search_files("none", "*")).exception, FileError)


async def test_directories(files: AsyncFileSystem) -> None:
    """Directories are created with parents, moved whole and deleted with contents."""
    assert (await files.create_directory("a/b/c")).data is True
    assert await files.create_directory("a/b/c")
    assert (await files.get_file_info("a/b")).is_directory
    assert await files.move_file("a", "z")
    assert await files.rm("z")
    for result in (await files.remove("z"), await files.move_file("a", "z"), await files.get_file_info("a")):
        assert isinstance(result.exception, FileError)


def said(text: str) -> ToolReply:
    return ToolReply(content=[{"type": "text", "text": text}])


LINE = st.text(st.characters(exclude_characters="\n\r", exclude_categories=["Cs"]))
NAME = st.text(st.characters(exclude_characters="\0\n\r/", exclude_categories=["Cs"]), min_size=1)
PATHS = st.lists(NAME.map(lambda name: f"/d/{name}"), min_size=1, max_size=5, unique=True)


@given(st.data())
def test_contents_in_a_text(data: st.DataObject) -> None:
    """Contents are read from the text form as they were written."""
    paths = data.draw(PATHS)
    contents = {path: data.draw(st.one_of(st.sampled_from(TEXTS), st.text())) for path in paths}
    text = "\n---\n".join(f"{path}:\n{content}\n" for path, content in contents.items())
    marks = [f"\n---\n{path}:" for path in paths[1:]]
    if all(text.count(mark) == 1 for mark in marks):
        assert read_contents(said(text), paths) == (contents, {})
    else:
        read_contents(said(text), paths)


@given(LINE, st.lists(NAME, max_size=3))
def test_contents_of_any_text(text: str, paths: list[str]) -> None:
    """No text makes the reader fail."""
    read_contents(said(text), paths)


def test_contents_as_the_reference_has_them() -> None:
    """A text of other paths is read by lines, as in the reference."""
    assert read_contents(said("a: one\ntwo\n---\nb:\n x \n---\n"), ["c"]) == ({"a": "one\ntwo", "b": "x"}, {})
    assert read_contents(said("/a: Error - no\n---\n/b:\nError - x\n"), ["/a", "/b"]) == (
        {"/b": "Error - x"},
        {"/a": "no"},
    )
    structured = ToolReply(
        structured_content={"files": [{"path": "a", "content": "---"}, {"path": "b", "error": "no"}]}
    )
    assert read_contents(structured, ["a", "b"]) == ({"a": "---"}, {"b": "no"})


@given(st.lists(st.tuples(NAME.filter(lambda name: not name[0].isspace()), st.booleans())))
def test_listing_in_a_text(entries: list[tuple[str, bool]]) -> None:
    """A listing is read exactly, with trailing blanks and tags in names."""
    text = "\n".join(f"{'[DIR]' if is_directory else '[FILE]'} {name}" for name, is_directory in entries)
    assert [(entry.name, entry.is_directory) for entry in read_directory_listing(said(text))] == entries


@given(st.lists(NAME.map(lambda name: f"/d/{name}")))
def test_matches_in_a_text(paths: list[str]) -> None:
    """Search results are read exactly, one path per line."""
    assert read_matches(said("\n".join(paths) or "No matches found")) == paths


@given(st.dictionaries(LINE.filter(lambda key: key.strip() == key and ":" not in key), st.one_of(st.integers(), LINE)))
def test_info_in_a_text(info: dict[str, object]) -> None:
    """File information is split at the first colon, and nothing fails."""
    found = read_info("\n".join(f"{key}: {value}" for key, value in info.items()))
    assert set(found) == set(info)
    assert all(found[key] == value for key, value in info.items() if isinstance(value, int))


@given(st.text())
def test_changes_of_any_text(text: str) -> None:
    """No text makes the readers of changes fail."""
    assert isinstance(read_changes(text), list)
    assert isinstance(read_edit_diff(said(text)), str)


STATE = st.dictionaries(
    st.sampled_from(["/a", "/b", "/c"]), st.tuples(st.booleans(), st.integers(0, 1), st.just(0), st.just(0)).map(list)
)


@given(STATE, STATE)
def test_changes_lead_from_one_state_to_the_other(before: dict[str, list[int]], now: dict[str, list[int]]) -> None:
    """Change events lead from the old set of paths to the new one."""
    paths = set(before)
    for event in diff_snapshots(before, now):
        if event["eventType"] == "create":
            paths.add(event["path"])
        elif event["eventType"] == "delete":
            paths.discard(event["path"])
        else:
            assert event["path"] in paths
    assert paths == set(now)
    assert diff_snapshots(now, now) == []


async def test_arguments() -> None:
    """Tools get their arguments as the reference sends them."""
    with Service(tool_says("True")) as service:
        async with client_of(service) as (files, sent):
            await files.search_files("/a", "*", ["x", "y"])
            assert sent() == ("search_files", {"path": "/a", "pattern": "*", "excludePatterns": "x,y"})
            await files.search_files("/a", "*", [])
            assert sent() == ("search_files", {"path": "/a", "pattern": "*"})
            await files.edit_file("/a", [{"oldText": "x", "newText": "y"}])
            edit = {"path": "/a", "edits": [{"oldText": "x", "newText": "y"}], "dryRun": False}
            assert sent() == ("edit_file", edit)
            await files.read_multiple_files(["/a", "/b"])
            assert sent() == ("read_multiple_files", {"paths": ["/a", "/b"]})
            await files.move_file("/a", "/b")
            assert sent() == ("move_file", {"source": "/a", "destination": "/b"})
            await files._get_file_change("/a")
            assert sent() == ("get_file_change", {"path": "/a"})


async def test_move_that_fails_without_a_word() -> None:
    """A failure without a text gets a default message."""
    with Service(tool_says("", is_error=True)) as service:
        async with client_of(service) as (files, _):
            assert (await files.move_file("/a", "/b")).error_message == "Failed to move file"
