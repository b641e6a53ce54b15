"""Building images from Dockerfiles and from `Image` on the local runtime."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from agentbay import (
    AsyncAgentBay,
    Config,
    CreateSessionParams,
    FileError,
    Image,
    ImageBuildError,
    InvalidArgumentError,
    InvalidRequestError,
    NotSupportedError,
    WaitTimeoutError,
)
from tests import scripted
from tests.local.images.builds import Built, busybox_layer, directory, member, needs_busybox
from tests.local.traces import processes_with, unique_seconds

pytestmark = needs_busybox
BASE = "busybox:base"


@pytest.fixture(scope="module", autouse=True)
async def base(bay: AsyncAgentBay, tmp_path_factory: pytest.TempPathFactory) -> None:
    archive = tmp_path_factory.mktemp("base") / "base.tar"
    config = {"Env": ["PATH=/bin", "KEPT=base"], "Cmd": ["sh"]}
    archive.write_bytes(Built([busybox_layer(directory("srv"), member("srv/old", b"old\n"))], config).oci_archive())
    await bay.images.import_file(archive, name=BASE)


async def shown(bay: AsyncAgentBay, image: str | Image, script: str) -> str:
    """What a script prints in a session on an image."""
    async with bay.session(CreateSessionParams(image_id=image)) as session:
        done = await session.command.run(script)
        return done.stdout + done.stderr


async def test_instructions(bay: AsyncAgentBay, tmp_path: Path) -> None:
    """Each instruction of the subset does what it does elsewhere, and the image says what it was told."""
    (tmp_path / "app/sub").mkdir(parents=True)
    (tmp_path / "app/main.sh").write_text("#!/bin/sh\necho main\n")
    (tmp_path / "app/main.sh").chmod(0o755)
    (tmp_path / "app/sub/data").write_text("data\n")
    (tmp_path / "app/link").symlink_to("sub/data")
    architecture = (await bay.images.get(BASE)).architecture
    (tmp_path / "Dockerfile").write_text(
        f"""# a comment
ARG TAG=base
ARG UNUSED
FROM --platform=linux/{architecture} busybox:${{TAG}}
ARG TAG
ARG WHO=nobody
ENV GREETING="hello  $WHO" PLAIN=a\\ b
ENV OLD the old form
LABEL team="a b" tag=$TAG
WORKDIR /srv/app
WORKDIR nested
COPY app .
COPY --chown=app:app --chmod=600 app/sub/data /etc/copied
COPY ["app/main.sh", "/bin/entry"]
RUN echo "$GREETING|$WHO|$TAG|$PLAIN|$OLD|$KEPT" > /ran && \\
    # in between
    rm /srv/old
RUN ["mkdir", "/a b"]
RUN <<EOF
for name in one two; do
    touch /a\\ b/$name
done
EOF
COPY <<CONF <<'RAW' /conf/
who=$WHO
CONF
who=$WHO
RAW
EXPOSE 80
SHELL ["/bin/sh", "-e", "-c"]
RUN false || true; echo shell > /shell
USER app
ENTRYPOINT ["/bin/entry", "-v"]
CMD serve it
"""
    )
    output: list[str] = []
    image = await bay.images.build(
        tmp_path / "Dockerfile", name="made:1", build_args={"WHO": "you"}, on_output=output.append
    )
    assert (image.names, image.workdir, image.user, image.labels) == (
        ["made:1"],
        "/srv/app/nested",
        "app",
        {"team": "a b", "tag": "base"},
    )
    assert (image.entrypoint, image.command) == (["/bin/entry", "-v"], ["/bin/sh", "-e", "-c", "serve it"])
    assert image.env == {
        "PATH": "/bin", "KEPT": "base", "GREETING": "hello  you", "PLAIN": "a b", "OLD": "the old form",
    }  # fmt: skip
    printed = await shown(
        bay,
        "made:1",
        "pwd; ls; cat link /ran /conf/CONF /conf/RAW /shell; ls '/a b'; entry; ls -l /etc/copied; ls /srv/old; id -u",
    )
    assert printed.startswith(
        "/srv/app/nested\nlink\nmain.sh\nsub\ndata\nhello  you|you|base|a b|the old form|base\nwho=you\nwho=$WHO\n"
        "shell\none\ntwo\nmain\n-rw-------"
    )
    assert printed.endswith("4711\nls: /srv/old: No such file or directory\n")
    text = "".join(output)
    assert "[1/21] FROM" in text
    assert "EXPOSE means nothing for a session" in text


async def test_steps_are_done_once(bay: AsyncAgentBay, tmp_path: Path) -> None:
    """A step is done again only if something before it, its text, its variables or its files have changed."""
    (tmp_path / "f").write_text("1")
    text = f"FROM {BASE}\nARG V=1\nRUN echo first-ran\nCOPY f /f\nRUN echo second-ran; cat /f\n"

    async def build(**arguments: str) -> tuple[str, list[str]]:
        printed: list[str] = []
        made = await bay.images.build(text, tmp_path, name="steps", build_args=arguments, on_output=printed.append)
        lines = "".join(printed).splitlines()
        return made.image_id, [line for line in lines if line in ("first-ran", "second-ran")]

    first, ran = await build()
    assert ran == ["first-ran", "second-ran"]
    assert await build() == (first, [])
    (tmp_path / "f").chmod(0o755)
    changed, ran = await build()
    assert (changed != first, ran) == (True, ["second-ran"])
    (tmp_path / "f").write_text("2")
    assert (await build())[1] == ["second-ran"]
    assert (await build(V="2"))[1] == ["first-ran", "second-ran"]
    names = {name for known in await bay.images.list() for name in known.names}
    assert "steps:latest" in names
    # of the images that had the name before, and of nothing else
    assert {known.source for known in await bay.images.prune()} == {"a build"}
    assert (await build(V="2"))[1] == []


async def test_a_build_goes_on_where_it_failed(bay: AsyncAgentBay) -> None:
    """The steps before one that fails are not done again."""
    printed: list[str] = []
    text = f"FROM {BASE}\nRUN echo once-ran > /x; cat /x\nRUN {{last}}\n"
    with pytest.raises(ImageBuildError, match="Line 3: RUN: the command ended with exit code 3") as caught:
        await bay.images.build(text.format(last="echo to-mend; exit 3"), name="mended", on_output=printed.append)
    assert caught.value.output == "".join(printed)
    assert "\nonce-ran\n" in caught.value.output
    assert caught.value.output.endswith("\nto-mend\n")
    printed.clear()
    await bay.images.build(text.format(last="echo mended"), name="mended", on_output=printed.append)
    lines = "".join(printed).splitlines()
    assert ("once-ran" in lines, "mended" in lines) == (False, True)


async def test_builds_that_are_cancelled(bay: AsyncAgentBay) -> None:
    """When its caller gives up, a build ends before the call does, and the steps that were done are kept."""
    text = f"FROM {BASE}\nRUN echo once-ran > /y\nRUN echo begun; sleep {{seconds}}\n"
    seconds = unique_seconds()
    with pytest.raises(WaitTimeoutError):
        await bay.images.build(text.format(seconds=seconds), timeout=3)
    assert not processes_with(seconds)
    printed: list[str] = []
    await bay.images.build(text.format(seconds=0), on_output=printed.append)
    assert "".join(printed).count("unchanged") == 1
    await bay.images.prune()


async def test_what_is_sent(bay: AsyncAgentBay, tmp_path: Path) -> None:
    """`.dockerignore` leaves files out, as Docker reads it, and wildcards choose among the others."""
    for name in ("a.txt", "b.txt", "c.log", "deep/d.txt", "deep/e.log", "out/keep/x", "out/drop"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / ".dockerignore").write_text("# comment\n*.log\n/out\n!out/keep\nDockerfile\n.dockerignore\n")
    (tmp_path / "Dockerfile").write_text(f"FROM {BASE}\nCOPY . /all/\nCOPY *.txt deep/[a-z].* /some/\n")
    await bay.images.build(tmp_path / "Dockerfile", name="sent")
    found = await shown(bay, "sent", "cd /all; ls; ls deep; ls out/keep; ls out; ls /some")
    assert found == "a.txt\nb.txt\ndeep\nout\nd.txt\ne.log\nx\nkeep\na.txt\nb.txt\nd.txt\ne.log\n"
    (tmp_path / "other.Dockerfile").write_text(f"FROM {BASE}\nCOPY c.log /\n")
    with pytest.raises(ImageBuildError, match=r"Line 2: COPY: the context has no file 'c\.log'.*\.dockerignore"):
        await bay.images.build(tmp_path / "other.Dockerfile")
    (tmp_path / "other.Dockerfile.dockerignore").write_text("")
    assert (await bay.images.build(tmp_path / "other.Dockerfile")).names == []


async def test_archives_are_unpacked(bay: AsyncAgentBay, tmp_path: Path) -> None:
    """ADD unpacks tar archives, also compressed ones, and copies all else; COPY unpacks nothing."""
    (tmp_path / "data.gz").write_bytes(b"\x1f\x8bnot really")
    with tarfile.open(tmp_path / "a.tar.xz", "w:xz") as archive:
        made = tarfile.TarInfo("in/file")
        made.size = 5
        archive.addfile(made, io.BytesIO(b"text\n"))
        linked = tarfile.TarInfo("in/linked")
        linked.type, linked.linkname = tarfile.LNKTYPE, "in/file"
        archive.addfile(linked)
    text = f"FROM {BASE}\nADD a.tar.xz data.gz /added/\nCOPY a.tar.xz /copied\n"
    await bay.images.build(text, tmp_path, name="unpacked")
    assert (await shown(bay, "unpacked", "cd /added; ls; cat in/linked; wc -c < data.gz; ls /copied")).split() == [
        "data.gz", "in", "text", "12", "/copied",
    ]  # fmt: skip


async def test_images_described_in_python(bay: AsyncAgentBay, tmp_path: Path) -> None:
    """An `Image` is built when a session needs it, or by name; quotes, dollars and several lines stay as they are."""
    (tmp_path / "tool.sh").write_text("echo tool\n")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/[x] $y").write_text("odd name\n")
    start = Image(BASE).env({"ODD": 'a "b" $HOME \\'}).workdir("/my work")
    image = (
        start.run("echo one > 1", "printf 'two\nlines\n' > 2", ["touch", "a b"], "[ -e 1 ] && echo t > 3")
        .copy(tmp_path / "tool.sh", "/bin/tool")
        .copy(tmp_path / "folder", "/folder")
        .label({"made by": "tests"})
        .entrypoint([])
        .user("app")
    )
    assert await shown(bay, image, "pwd; ls; cat 2; sh /bin/tool; cat '/folder/[x] $y'; echo \"$ODD\"; id -u") == (
        '/my work\n1\n2\n3\na b\ntwo\nlines\ntool\nodd name\na "b" $HOME \\\n4711\n'
    )
    named = await bay.images.build(image, name="described:1")
    assert (named.names, named.labels, named.user) == (["described:1"], {"made by": "tests"}, "app")
    assert start.dockerfile == f'FROM {BASE}\nENV ODD="a \\"b\\" \\$HOME \\\\"\nWORKDIR "/my work"\n'
    assert await shown(bay, start, "pwd; ls") == "/my work\n"


async def test_several_stages(bay: AsyncAgentBay) -> None:
    """A stage can begin with an earlier one, and each has its own ARG."""
    text = f"FROM {BASE} AS first\nARG X=1\nENV Y=2\nRUN echo $X$Y > /x\nFROM first\nRUN echo $X$Y >> /x\n"
    await bay.images.build(text, name="stages")
    assert await shown(bay, "stages", "cat /x") == "12\n2\n"


async def test_files_of_other_stages_and_images(bay: AsyncAgentBay, tmp_path: Path) -> None:
    """`COPY --from` takes files of earlier stages, by name or number, and of images, links and removed files minded."""
    (tmp_path / "of-context").write_text("context\n")
    text = f"""FROM {BASE} AS Builder
RUN mkdir -p /out/sub && echo built > /out/app && chmod 755 /out/app && ln -s app /out/link && ln -s /out /way
RUN echo gone > /out/gone; echo kept > /out/sub/kept
RUN rm /out/gone; rm -r /out/sub; mkdir /out/sub; echo new > /out/sub/new
FROM scratch
COPY of-context /
FROM {BASE}
COPY --from=builder /out /all
COPY --from=0 /way/link /out/a* /some/
COPY --chmod=600 --from=builder out/app /alone
COPY --from={BASE} --chown=app:app /srv/old /etc/passwd /image/
COPY --from=1 of-context /
"""
    printed: list[str] = []
    await bay.images.build(text, tmp_path, name="copied:1", on_output=printed.append)
    script = """cd /all; ls; ls sub; cat link; ls /some /image; cat /some/link /alone /of-context
    for file in /all/link /some/link; do [ -L $file ] && echo linked || echo copied; done
    for file in /all/app /some/link /alone; do [ -x $file ] && echo runs || echo closed; done"""
    assert (await shown(bay, "copied:1", script)).split() == [
        *("app", "link", "sub", "new", "built"),
        *("/image:", "old", "passwd", "/some:", "app", "link", "built", "built", "context"),
        *("linked", "copied"),  # a link stays one below what is named, and is followed where it is named
        *("runs", "runs", "closed"),
    ]
    printed.clear()
    await bay.images.build(text, tmp_path, name="copied:1", on_output=printed.append)
    assert "".join(printed).count("unchanged") == 9


async def test_stages_that_nothing_needs(bay: AsyncAgentBay) -> None:
    """A stage that the last one does not need is not built."""
    printed: list[str] = []
    text = f"FROM {BASE} AS unused\nRUN exit 1\nFROM {BASE} AS used\nRUN echo 1 > /x\nFROM used\nRUN cat /x\n"
    await bay.images.build(text, name="needed:1", on_output=printed.append)
    assert "[4/4] RUN cat /x" in "".join(printed)
    with pytest.raises(ImageBuildError, match="Line 3: COPY: the stage used has no file '/absent'"):
        await bay.images.build(f"FROM {BASE} AS used\nFROM {BASE}\nCOPY --from=used /absent /\n")
    with pytest.raises(InvalidRequestError, match="Line 3: later:1 is not in the store"):
        await bay.images.build(f"FROM scratch AS other\nFROM {BASE} AS later\nCOPY --from=later:1 /x /\n")


async def test_a_stage_that_is_asked_for(bay: AsyncAgentBay) -> None:
    """`target` is the stage that becomes the image, by its name or number; what follows is not built."""
    text = f"FROM {BASE} AS Base\nRUN echo base > /x\nFROM base\nRUN echo next >> /x\nFROM {BASE}\nRUN exit 1\n"
    for target, content in (("bASE", "base\n"), ("1", "base\nnext\n")):
        await bay.images.build(text, name="target:1", target=target)
        assert await shown(bay, "target:1", "cat /x") == content
    with pytest.raises(ImageBuildError, match="has no stage 'none'"):
        await bay.images.build(text, target="none")


async def test_links_of_contexts(bay: AsyncAgentBay, tmp_path: Path) -> None:
    """A link that is named as a source is followed in the context, one in a folder is copied as it is."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/file").write_text("text\n")
    (tmp_path / "folder/inner").symlink_to("file")
    (tmp_path / "to-folder").symlink_to("folder")
    (tmp_path / "to-file").symlink_to("/to-folder/inner")
    (tmp_path / "loop").symlink_to("loop")
    text = f"FROM {BASE}\nCOPY to-file /named\nCOPY to-folder /copied\nCOPY loop /loop\n"
    await bay.images.build(text, tmp_path, name="links:1")
    found = await shown(bay, "links:1", "cat /named; ls -l /named /copied/inner /loop")
    lines = [line.split() for line in found.splitlines()]
    assert lines[0] == ["text"]
    assert [line[0][0] for line in lines[1:]] == ["l", "l", "-"]


async def test_from_nothing(bay: AsyncAgentBay, tmp_path: Path) -> None:
    """An image can be made of copied files alone."""
    (tmp_path / "busybox").write_bytes(Path("/bin/busybox").read_bytes())
    (tmp_path / "busybox").chmod(0o755)
    await bay.images.build(
        'FROM scratch\nCOPY busybox /bin/\nRUN ["/bin/busybox", "mkdir", "/made"]\n', tmp_path, name="own"
    )
    assert await shown(bay, "own", "busybox ls -d /made") == "/made\n"
    with pytest.raises(ImageBuildError, match="no program could run"):
        await bay.images.build("FROM scratch\nRUN true\n")
    with pytest.raises(ImageBuildError, match="has no files"):
        await bay.images.build("FROM scratch\nENV A=1\n")


async def test_refusals(bay: AsyncAgentBay, tmp_path: Path) -> None:
    """What cannot be built is refused with its line, before anything is sent or later."""
    with pytest.raises(ImageBuildError, match="Line 2: 'VOLUME' is not among"):
        await bay.images.build(f"FROM {BASE}\nVOLUME /x\n")
    with pytest.raises(ImageBuildError, match=r"Line 2: COPY: the context has no file '\.\./secret'"):
        await bay.images.build(f"FROM {BASE}\nCOPY ../secret /\n", tmp_path)
    for name in ("a", "b"):
        (tmp_path / name).touch()
    with pytest.raises(ImageBuildError, match="several files go to /one"):
        await bay.images.build(f"FROM {BASE}\nCOPY a b /one\n", tmp_path)
    with pytest.raises(InvalidRequestError, match="Line 3: RUN: The image's user is 'stranger'"):
        await bay.images.build(
            f"FROM {BASE}\nUSER stranger\nRUN true\n".replace("\nUSER", " \nUSER").replace("\nRUN", "\nRUN")
        )
    with pytest.raises(InvalidRequestError, match="Line 1: absent:1 is not in the store"):
        await bay.images.build("FROM absent:1\nRUN true\n")
    with pytest.raises(ImageBuildError, match="linux_latest is the programs of this machine"):
        await bay.images.build("FROM linux_latest\nRUN true\n")
    with pytest.raises(InvalidRequestError, match="is no name for an image"):
        await bay.images.build(f"FROM {BASE}\n", name="../x")
    with pytest.raises(FileError, match="Dockerfile"):
        await bay.images.build(tmp_path / "Dockerfile")
    with pytest.raises(FileError, match="is no folder"):
        await bay.images.build(f"FROM {BASE}\n", tmp_path / "absent")
    with pytest.raises(FileError):
        await bay.images.build(Image(BASE).copy(tmp_path / "absent", "/x"))
    with pytest.raises(ImageBuildError, match="Line 2: RUN: a command needs a name"):
        await bay.images.build(f'FROM {BASE}\nRUN [""]\n')
    with pytest.raises(FileError) as no_text:
        await bay.images.build(f"FROM {BASE}")
    assert "line end" in no_text.value.hint
    for text in (f"FROM {BASE}\nRUN \ud83d\n", Image(BASE).run("\ud83d"), Image(BASE).run("\0")):
        with pytest.raises(InvalidArgumentError, match="dockerfile"):
            await bay.images.build(text)
    with pytest.raises(InvalidRequestError, match="policy_id: the policies"):
        await bay.images.build(f"FROM {BASE}\n", policy_id="internet")
    for wrong in (lambda: Image(""), lambda: Image("a b"), lambda: Image("a").env(A="x\ny"), lambda: Image("a").run(1)):  # type: ignore[arg-type]
        with pytest.raises(InvalidArgumentError):
            wrong()


async def test_services_without_images() -> None:
    """A service that builds nothing says so, also when a session is to be made of an `Image`."""
    with scripted.Service(scripted.refused("InvalidAction.NotFound", 404)) as service:
        async with AsyncAgentBay("akm-EXAMPLE", cfg=Config(endpoint=service.url)) as bay:
            with pytest.raises(NotSupportedError, match="no images to build"):
                await bay.images.build("FROM a\nRUN b\n")
            refused = await bay.create(CreateSessionParams(image_id=Image("a")))
            assert isinstance(refused.exception, NotSupportedError)
