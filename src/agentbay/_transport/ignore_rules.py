"""The rules of `.gitignore` and `.dockerignore` files, read as git and Docker do.

`pathspec` translates them to regular expressions, except bracket expressions such as `[[:digit:]_-]` and spaces at the
end of a line, which it reads in other ways than git does.
"""

from __future__ import annotations

import posixpath
import re
import string
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress

# Each part that pathspec must not see is replaced by one character, from here on. `_as_bytes` makes none of them.
_FIRST_PLACEHOLDER = 0xF0000
_CLASSES = {
    "alnum": string.ascii_letters + string.digits,
    "alpha": string.ascii_letters,
    "blank": " \t",
    "cntrl": "".join(map(chr, (*range(32), 127))),
    "digit": string.digits,
    "graph": "".join(map(chr, range(33, 127))),
    "lower": string.ascii_lowercase,
    "print": "".join(map(chr, range(32, 127))),
    "punct": string.punctuation,
    "space": " \t\n\r",  # as git has it, without \v and \f
    "upper": string.ascii_uppercase,
    "xdigit": string.hexdigits,
}
_TRAILING_SPACES = re.compile(r"((?:\\.|[^\\])*?) *", re.DOTALL)
_CLASS = re.compile(r"\[:([^]]*):\]")
# For a rule that ends with stars, pathspec's expression matches only a beginning of the path. Spelled out, the rule has
# one that matches the whole path.
_LAST_STARS = re.compile(r"(?<![^/!])\*{1,2}(?=/?$)")


def gitignore_matcher(patterns: Iterable[str]) -> Callable[[str, bool], bool]:
    """Return a function that tells whether git would ignore a path.

    It looks at the one path only: the caller skips everything below an ignored directory. A rule that git cannot read
    matches nothing.

    Args:
        patterns: Lines of a `.gitignore` file.
    """
    rules: list[tuple[re.Pattern[str], bool]] = []
    for line in (line for pattern in patterns for line in pattern.split("\n")):
        with suppress(ValueError, re.error):
            # Reversed, since in git the last rule that matches decides.
            rules[:0] = _read_rule(_as_bytes(line.removesuffix("\r")))

    def ignored(path: str, is_directory: bool) -> bool:
        name = _as_bytes(f"{path}/" if is_directory else path)
        return next((ignores for regex, ignores in rules if regex.fullmatch(name)), False)

    return ignored


def dockerignore_matcher(patterns: Iterable[str]) -> Callable[[str], bool]:
    """Return a function that tells whether a build leaves a path out.

    Rules are relative to the build context, a rule for a folder covers everything in it, and the last matching rule
    decides.

    Args:
        patterns: Lines of a `.dockerignore` file.
    """
    from pathspec import PathSpec

    rules = [line.strip() for line in patterns]
    anchored = [_anchor(rule) for rule in rules if rule and not rule.startswith("#")]
    return PathSpec.from_lines("gitignore", filter(None, anchored)).match_file


def _anchor(rule: str) -> str:
    """Translate a rule of a `.dockerignore` into one of a `.gitignore`."""
    taken_back = "!" if rule.startswith("!") else ""
    path = posixpath.normpath(f"/{rule.removeprefix('!').strip()}").lstrip("/")
    return f"{taken_back}/{path}" if path else ""


def _as_bytes(text: str) -> str:
    # git compares bytes: its ? stands for one of the two bytes of an umlaut.
    return text.encode("utf-8", "surrogateescape").decode("latin-1")


def _read_rule(line: str) -> Iterator[tuple[re.Pattern[str], bool]]:
    """Yield the rule in a line, if there is one."""
    from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern  # here, so that importing agentbay stays quick

    pattern, hidden = _hide_brackets(_cut_trailing_spaces(line))
    # pathspec's own matcher also judges paths by their parents, so that `!src/` would take back all below src/.
    regex, ignores = GitIgnoreSpecPattern.pattern_to_regex(_LAST_STARS.sub(_spell_out_stars, pattern))
    if regex is not None:
        shown = "".join(hidden.get(character, character) for character in regex)
        yield re.compile(shown, re.DOTALL), bool(ignores)


def _cut_trailing_spaces(line: str) -> str:
    found = _TRAILING_SPACES.fullmatch(line)
    return found[1] if found else line  # a single backslash at the end is no escape


def _hide_brackets(pattern: str) -> tuple[str, dict[str, str]]:
    """Replace bracket expressions, and whitespace at the end, by placeholders.

    Returns:
        The pattern, and the regular expression that each placeholder stands for.

    Raises:
        ValueError: A bracket expression is malformed.
    """
    hidden: dict[str, str] = {}
    shown: list[str] = []

    def hide(regex: str) -> None:
        placeholder = chr(_FIRST_PLACEHOLDER + len(hidden))
        hidden[placeholder] = regex
        shown.append(placeholder)

    is_anchored = False
    position = 0
    while position < len(pattern):
        start = position
        if pattern[start] == "[":
            regex, position = _read_brackets(pattern, start + 1)
            is_anchored |= "/" in pattern[start:position]  # for git this counts, although it can match no slash
            hide(regex)
            continue
        position += 2 if pattern[start] == "\\" else 1
        token = pattern[start:position]
        if position >= len(pattern) and token[-1].isspace():  # pathspec would cut it off
            hide(re.escape(token[-1]))
        else:
            shown.append(token)
    start = 1 if pattern.startswith("!") else 0
    if is_anchored and shown[start] != "/":
        shown.insert(start, "/")
    return "".join(shown), hidden


def _read_brackets(pattern: str, position: int) -> tuple[str, int]:
    """Read a bracket expression that begins before a position.

    Returns:
        A regular expression for it, and the position behind it.

    Raises:
        ValueError: It is malformed.
    """
    negated = pattern[position : position + 1] in ("!", "^")
    position += negated
    ranges: list[tuple[str, str]] = []
    previous = ""  # the character that a range may begin with
    is_first = True
    while is_first or pattern[position : position + 1] != "]":
        is_first = False
        if found := _CLASS.match(pattern, position):
            ranges += [(character, character) for character in _CLASSES.get(found[1], "")]
            if found[1] not in _CLASSES:
                raise ValueError(f"there is no class {found[1]!r}")
            previous, position = "", found.end()
            continue
        is_range = bool(previous) and re.match(r"-[^]]", pattern[position:], re.DOTALL) is not None
        position += is_range
        position += pattern[position : position + 1] == "\\"
        if position >= len(pattern):
            raise ValueError("a bracket expression does not end")
        character = pattern[position]
        ranges.append((previous if is_range else character, character))
        previous = "" if is_range else character
        position += 1
    codes = "".join(f"\\x{ord(low):02x}-\\x{ord(high):02x}" for low, high in ranges if low <= high)
    if negated:
        return f"[^/{codes}]", position + 1
    return (f"(?:(?!/)[{codes}])" if codes else "(?!)"), position + 1


def _spell_out_stars(stars: re.Match[str]) -> str:
    return "**/?*" if stars[0] == "**" else "?*"
