"""Render signatures for the reference, without `self`, wrapped where too long."""

from __future__ import annotations

import griffe
from sections import quoted

WIDTH = 100
SHOWN_DECORATORS = ("property", "classmethod", "staticmethod", "asynccontextmanager", "contextmanager")


def signature(member: griffe.Object) -> str:
    """Return the head of a function, method or property."""
    if isinstance(member, griffe.Attribute):  # a property; a cached one too
        return f"@property\ndef {member.name}() -> {member.annotation}"
    assert isinstance(member, griffe.Function)
    decorators = [str(decorator.value) for decorator in member.decorators]
    lines = [f"@{name}" for name in decorators if name in SHOWN_DECORATORS]
    head = f"{'async ' * ('async' in member.labels)}def {member.name}("
    shown = parameters(member, keep_self=member.name == "__init__")
    returns = f" -> {member.returns}" if member.returns is not None and member.name != "__init__" else ""
    return "\n".join([*lines, folded(head, shown, f"){returns}")])


def folded(head: str, parts: list[str], tail: str) -> str:
    """Return one line, or a first line with one part a line below."""
    line = head + ", ".join(parts) + tail
    if len(line) <= WIDTH:
        return line
    return head + f",\n{' ' * len(head)}".join(parts) + tail


def parameters(function: griffe.Function, *, keep_self: bool = False) -> list[str]:
    """Return the parameters as written, with `/` and `*` where they belong."""
    shown, kinds = [], griffe.ParameterKind
    starred = False
    for parameter in function.parameters:
        if parameter.name in ("self", "cls") and not keep_self:
            continue
        if parameter.kind is kinds.keyword_only and not starred:
            shown.append("*")
            starred = True
        name = parameter.name
        if parameter.kind is kinds.var_positional:
            name, starred = f"*{name}", True
        if parameter.kind is kinds.var_keyword:
            name = f"**{name}"
        shown.append(_parameter(name, parameter.annotation, parameter.default))
    return shown


def _parameter(name: str, annotation: object, default: object) -> str:
    typed = f"{name}: {quoted(annotation)}" if annotation is not None else name
    if default is None or name.startswith("*"):
        return typed
    return f"{typed} = {quoted(default)}" if annotation is not None else f"{typed}={quoted(default)}"


def fields(found: griffe.Class) -> dict[str, griffe.Attribute]:
    """Return the fields of an attrs class, bases first, or nothing for others."""
    if not any("define" in str(decorator.value) or "frozen" in str(decorator.value) for decorator in found.decorators):
        return {}
    ordered: dict[str, griffe.Attribute] = {}
    for room in [*reversed(found.mro()), found]:
        for name, member in room.members.items():
            if (
                isinstance(member, griffe.Attribute)
                and member.annotation is not None
                and "property" not in member.labels
            ):
                if "ClassVar" in str(member.annotation):
                    continue
                ordered.pop(name, None)
                ordered[name] = member
    return ordered


def init_line(found: griffe.Class) -> str:
    """Return the constructor of an attrs class, keyword-only fields last."""
    plain, keyword = ["self"], []
    for name, member in fields(found).items():
        given = _given(member.value)
        if given.get("init") == "False":
            continue
        default = _default(member.value, given)
        (keyword if given.get("kw_only") == "True" else plain).append(
            _parameter(name.lstrip("_"), member.annotation, default)
        )
    return folded("def __init__(", [*plain, *(["*"] * bool(keyword)), *keyword], ")")


def _given(value: object) -> dict[str, str]:
    """Return the arguments of `field(...)`, or nothing for other values."""
    if not isinstance(value, griffe.ExprCall) or str(value.function) != "field":
        return {}
    named = [argument for argument in value.arguments if isinstance(argument, griffe.ExprKeyword)]
    return {argument.name: str(argument.value) for argument in named}


def _default(value: object, given: dict[str, str]) -> str | None:
    """Return the default of a field."""
    if "factory" in given:
        return {"list": "[]", "dict": "{}", "set": "set()"}.get(given["factory"], f"{given['factory']}()")
    return given.get("default") if given or value is None else str(value)


def attribute_line(name: str, thing: griffe.Object) -> str:
    """Return the line for a type alias or a value."""
    return f"{name} = {thing.value}" if isinstance(thing, griffe.Attribute) else name
