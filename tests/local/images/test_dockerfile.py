"""What a Dockerfile says: its subset, and the line of whatever is outside of it."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given, strategies as st

from agentbay.local.builds.dockerfile import Instruction, parse_dockerfile
from agentbay.local.builds.words import expand, expand_text, split_words
from agentbay.local.images.errors import BuildFailed


def instructions(*lines: str) -> list[Instruction]:
    (stage,) = parse_dockerfile("\n".join(["FROM a", *lines])).stages
    return stage.instructions


def test_lines_are_joined() -> None:
    """A backslash continues a line, over comments and empty lines; instructions may be in lower case."""
    (made,) = instructions("run one \\", "  # not this", "", "   two \\  ", "&& three", "# nor this")
    assert (made.line, made.name, made.text) == (2, "RUN", "one    two && three")


def test_directives_and_a_byte_order_mark() -> None:
    """The lines with directives that editors and Docker put at the top are no instructions."""
    found = parse_dockerfile("\ufeff# syntax=docker/dockerfile:1\n# escape=\\\nFROM a AS Base\nFROM base\n")
    assert [(stage.image, stage.name) for stage in found.stages] == [("a", "base"), ("base", "")]


LIMITS = {
    "instructions": ["USER u"] * 2001,
    "sources": ["COPY " + "a " * 1001 + "/"],
    "here-documents": ["COPY " + "<<A " * 51 + "/", *["A"] * 51],
}


@pytest.mark.parametrize("name", LIMITS)
def test_limits(name: str) -> None:
    """A Dockerfile may have so many of a kind, and no more."""
    with pytest.raises(BuildFailed, match=name):
        instructions(*LIMITS[name])


def test_variables_that_grow() -> None:
    """Words and texts that their variables make too long are refused before they are."""
    variables = {"a": "x" * 1000}
    assert len(expand("$a" * 100, variables)) == 100_000
    for word in ("$a" * 140, "${a}" * 140, "${b:-$a}" * 140):
        with pytest.raises(ValueError, match="longer than"):
            expand(word, variables)
    assert len(expand_text("$a" * 1000, variables)) == 1_000_000
    with pytest.raises(ValueError, match="longer than"):
        expand_text("$a" * 2000, variables)
    with pytest.raises(ValueError, match="nested"):
        expand("${b:-" * 1000 + "}" * 1000, variables)


def test_exec_and_shell_form() -> None:
    """What is a JSON list of words is the exec form; a test of the shell is not."""
    listed, tested, nested = instructions('CMD ["a b", "c"]', "RUN [ -e /x ] && y", "RUN " + "[" * 100_000)
    assert listed.exec_form() == ["a b", "c"]
    assert tested.exec_form() is None
    assert nested.exec_form() is None


def test_heredocs() -> None:
    """Here-documents keep their lines, comments and backslashes too."""
    run, copy, following = instructions(
        "RUN <<EOF", "one \\", "# two", "EOF", "COPY <<'A' <<-B /x/", "$a", "A", "\tb", "\tB", "USER u"
    )
    assert run.heredocs[0].content == "one \\\n# two\n"
    assert [(part.content, part.is_literal) for part in copy.heredocs] == [("$a\n", True), ("b\n", False)]
    assert (following.line, following.text) == (11, "u")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["FROM a", "", "VOLUME /x"], r"Line 3: 'VOLUME' is not among the instructions"),
        (["FROM a", "RUN --mount=type=cache,target=/x y"], r"Line 2: RUN: --mount is not supported"),
        (["FROM a", "COPY --parents a b /"], r"Line 2: COPY: --parents is not supported"),
        (["FROM a", "ADD https://a.example/x /x"], r"Line 2: ADD: https://a.example/x is no local file"),
        (["FROM a", "ADD git@a.example:x /x"], r"no local file"),
        (["FROM a", "COPY x"], r"Line 2: COPY: it needs a source and a destination"),
        (["FROM a", "COPY --chmod=u+x x /"], r"no octal mode"),
        (["FROM a", "WORKDIR"], r"Line 2: WORKDIR: its arguments are missing"),
        (["FROM a", "SHELL /bin/bash -c"], r"Line 2: SHELL: it must have the form"),
        (["FROM a", 'COPY "x y /'], r'Line 2: COPY: a quote " is not closed'),
        (["FROM a", "RUN <<EOF", "x"], r"Line 2: RUN: the here-document EOF has no end"),
        (["FROM a b"], r"Line 1: FROM: it must have the form"),
        (["# c", "RUN x"], r"Line 2: RUN: a Dockerfile begins with FROM"),
        (["# escape=`", "FROM a"], r"Line 1: only \\ can be the escape character"),
        (["# nothing"], r"has no FROM"),
    ],
)
def test_refusals_name_the_line(lines: list[str], message: str) -> None:
    with pytest.raises(BuildFailed, match=message):
        parse_dockerfile("\n".join(lines))


VARIABLES = {"a": "1", "empty": "", "path": "/x y"}


@pytest.mark.parametrize(
    ("word", "meaning"),
    [
        ("$a", "1"),
        ("${a}b", "1b"),
        ("$absent.", "."),
        (r"\$a", "$a"),
        ("'$a'", "$a"),
        ('"$path"/z', "/x y/z"),
        (r'"a\"b\c"', r'a"b\c'),
        (r"a\ b", "a b"),
        ("${absent:-d}", "d"),
        ("${absent-d}${empty-d}", "d"),
        ("${empty:-d}", "d"),
        ("${a:+yes}${empty:+no}${empty+set}", "yesset"),
        ("${absent:-${a}'}'}", "1}"),
        ("$", "$"),
        ("a$", "a$"),
        ("$1", "$1"),
    ],
)
def test_expansion(word: str, meaning: str) -> None:
    assert expand(word, VARIABLES) == meaning


@pytest.mark.parametrize("word", ["${", "${a", "${a:", "${a%b}", "${-}", "${a:-"])
def test_malformed_variables(word: str) -> None:
    with pytest.raises(ValueError, match=r"variable|closed"):
        expand(word, VARIABLES)


def test_text_keeps_its_quotes() -> None:
    """Quotes in a here-document are part of it."""
    assert expand_text("'$a' \"${a}\" \\$a \\n", VARIABLES) == "'1' \"1\" $a \\n"


@given(st.text(alphabet="ab${}:-+'\"\\ \t", max_size=40))
def test_any_words_end(text: str) -> None:
    """Whatever a line holds is read or refused, and splitting loses nothing but spaces."""
    try:
        words = split_words(text)
    except ValueError:
        return
    assert sum(map(len, words)) <= len(text)
    for word in words:
        with suppress(ValueError):
            expand(word, VARIABLES)
