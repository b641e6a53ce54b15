"""Splitting the lines of a Dockerfile into words, and replacing variables."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_QUOTES = "'\""
MAX_WORD_CHARACTERS = 128 << 10  # Linux, MAX_ARG_STRLEN
_MAX_TEXT_CHARACTERS = 1 << 20  # of a here-document
_MAX_DEPTH = 50  # of variables in each other


def split_words(text: str) -> list[str]:
    """Split a line at spaces outside of quotes.

    Quotes and escapes stay in the words.

    Raises:
        ValueError: A quote is not closed.
    """
    words, word, quote, position = list[str](), "", "", 0
    while position < len(text):
        character = text[position]
        if character == "\\" and quote != "'":
            word += text[position : position + 2]
            position += 2
            continue
        if quote or character in _QUOTES:
            quote = "" if character == quote else quote or character
        elif character.isspace():
            if word:
                words.append(word)
            word = ""
            position += 1
            continue
        word += character
        position += 1
    if quote:
        raise ValueError(f"a quote {quote} is not closed")
    return [*words, word] if word else words


def expand(word: str, variables: Mapping[str, str]) -> str:
    """Return a word without its quotes, with the values of its variables.

    Raises:
        ValueError: A variable is malformed, or the result is too long.
    """
    return _Expansion(word, variables, MAX_WORD_CHARACTERS).run()


def expand_text(text: str, variables: Mapping[str, str]) -> str:
    """Return the content of a here-document with the values of its variables.

    Quotes in it mean nothing.

    Raises:
        ValueError: A variable is malformed, or the result is too long.
    """
    return _Expansion(text, variables, _MAX_TEXT_CHARACTERS, has_quotes=False).run()


class _Expansion:
    """One pass over a word.

    Variables of variables grow without bound, so what they add is counted.
    """

    def __init__(
        self, text: str, variables: Mapping[str, str], max_characters: int, *, has_quotes: bool = True
    ) -> None:
        self._text, self._variables, self._has_quotes = text, variables, has_quotes
        self._max_characters = max_characters
        self._position = self._depth = self._added = 0

    def run(self) -> str:
        return self._read(lambda: False)

    def _read(self, at_end: Callable[[], bool]) -> str:
        out, quote = "", ""
        while self._position < len(self._text) and not (not quote and at_end()):
            character = self._text[self._position]
            if character == "\\" and quote != "'":
                out += self._escaped(quote)
            elif self._has_quotes and (character == quote or (not quote and character in _QUOTES)):
                quote = "" if quote else character
                self._position += 1
            elif character == "$" and quote != "'":
                out += self._variable()
            else:
                out += character
                self._position += 1
        return out

    def _escaped(self, quote: str) -> str:
        following = self._text[self._position + 1 : self._position + 2]
        self._position += 2
        if (quote or not self._has_quotes) and following not in ('"', "$", "\\"):
            return f"\\{following}"
        return following

    def _variable(self) -> str:
        self._position += 1
        if self._text[self._position : self._position + 1] == "{":
            return self._braced()
        found = _NAME.match(self._text, self._position)
        if found is None:
            return "$"
        self._position = found.end()
        return self._counted(self._variables.get(found[0], ""))

    def _counted(self, value: str) -> str:
        self._added += len(value)
        if self._added > self._max_characters:
            raise ValueError(f"its variables make it longer than {self._max_characters:,} characters")
        return value

    def _braced(self) -> str:
        found = _NAME.match(self._text, self._position + 1)
        if found is None:
            raise ValueError(f"{self._text[self._position - 1 :]:.80} is no variable")
        self._position = found.end()
        value = self._variables.get(found[0])
        operator = re.compile(r":?[-+]|").match(self._text, self._position)
        assert operator is not None
        self._position = operator.end()
        if self._depth >= _MAX_DEPTH:
            raise ValueError(f"more than {_MAX_DEPTH} variables are nested in each other")
        self._depth += 1
        other = self._read(lambda: self._text[self._position] == "}") if operator[0] else ""
        self._depth -= 1
        if self._text[self._position : self._position + 1] != "}":
            raise ValueError(f"${{{found[0]}... may only have :-word or :+word, and must be closed by }}")
        self._position += 1
        is_set = bool(value) if operator[0].startswith(":") else value is not None
        if operator[0].endswith("+"):
            return other if is_set else ""
        return self._counted(value or "") if is_set or not operator[0] else other
