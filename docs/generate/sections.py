"""Render docstrings for the reference, with Arguments, Returns, Raises and Wire."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import griffe

Link = Callable[[str], str]
_WIRE = re.compile(r"^Wire: (.+(?:\n.+)*)\Z", re.MULTILINE)


def render(thing: griffe.Object, link: Link) -> list[str]:
    """Return the paragraphs that describe a class or one of its members."""
    text = thing.docstring.value if thing.docstring else ""
    wire = _WIRE.search(text)
    if wire:
        text = text[: wire.start()].rstrip()
    parts: list[str] = []
    returned = False
    for section in griffe.Docstring(text, parent=thing).parse("google", warnings=False):
        returned = returned or section.kind is griffe.DocstringSectionKind.returns
        parts += _section(section, thing, link)
    if not returned and isinstance(thing, griffe.Function) and _gives(thing):
        parts += ["**Returns**:", f"- {link(str(thing.returns))}"]
    return [*parts, f"**Wire**: {' '.join(wire[1].split())}"] if wire else parts


def escape(name: str) -> str:
    """Escape a name for Markdown."""
    return name.replace("_", "\\_")


def quoted(value: object) -> str:
    """Return an expression with double quotes, as in the sources."""
    return re.sub(r"'([^'\"]*)'", r'"\1"', str(value))


def names(annotation: str) -> Iterator[str]:
    """Return the names in an annotation."""
    yield from re.findall(r"[A-Za-z_]\w*", annotation)


def _gives(function: griffe.Function) -> bool:
    return (
        function.returns is not None and str(function.returns) not in ("None", "Self") and function.name != "__init__"
    )


def _section(section: griffe.DocstringSection, thing: griffe.Object, link: Link) -> list[str]:
    kind = griffe.DocstringSectionKind
    if section.kind is kind.text:
        return [section.value]
    if section.kind is kind.parameters:
        return ["**Arguments**:", "\n".join(_argument(item, thing) for item in section.value)]
    if section.kind is kind.attributes:
        return ["**Attributes**:", "\n".join(_item(_several(item), item) for item in section.value)]
    if section.kind in (kind.returns, kind.yields):
        title = section.kind.value.capitalize()
        return [f"**{title}**:", "\n".join(_item(link(_returned(thing)), item) for item in section.value)]
    if section.kind is kind.raises:
        return ["**Raises**:", "\n".join(_item(link(str(item.annotation)), item) for item in section.value)]
    raise SystemExit(f"{thing.path}: the docstring has a section {section.kind.value!r}, which the reference lacks")


def _returned(thing: griffe.Object) -> str:
    return str(thing.returns if isinstance(thing, griffe.Function) else getattr(thing, "annotation", ""))


def _several(item: griffe.DocstringNamedElement) -> str:
    """Split `a, b, c: text`, which the parser reads as one name, into names."""
    more = str(item.annotation).strip("()") if item.name.endswith(",") else ""
    listed = f"{item.name}{more}"
    return ", ".join(f"`{name.strip()}`" for name in listed.split(","))


def _item(head: str, item: griffe.DocstringElement) -> str:
    return f"- {head} - {' '.join(item.description.split())}"


def _argument(item: griffe.DocstringParameter, thing: griffe.Object) -> str:
    owner = thing.members.get("__init__") if isinstance(thing, griffe.Class) else thing
    given = owner.parameters if isinstance(owner, griffe.Function) else ()
    parameter = next((one for one in given if one.name == item.name), None)
    kind, default = "", ""
    if parameter is not None and parameter.annotation is not None:
        optional = ", optional" if parameter.default is not None else ""
        kind = f" _{escape(str(parameter.annotation))}{optional}_"
        default = f" Defaults to `{quoted(parameter.default)}`." if optional else ""
    return f"- {_several(item)}{kind} - {' '.join(item.description.split())}{default}"
