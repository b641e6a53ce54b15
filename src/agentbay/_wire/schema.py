"""Decorators that turn a class into a remote action, a tool or a payload.

Names on the wire follow one rule for each kind of class, such as `session_id` -> `SessionId`; a field that differs says
so with `wire_field(...)`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cache
from types import UnionType
from typing import Any, Generic, NamedTuple, TypeVar, dataclass_transform, get_args

import attrs

from .._lazy_attrs import define

DataT = TypeVar("DataT")
_T = TypeVar("_T")


class Codec(NamedTuple):
    """Write a value into a form field, and read it back."""

    encode: Callable[[Any], str]
    decode: Callable[[str], Any]


class EncodedJson(str):
    """A value that is JSON text already and is written as it is."""

    __slots__ = ()


def _json(**options: Any) -> Codec:
    def encode(value: Any) -> str:
        if isinstance(value, EncodedJson):
            return value
        # Paths that are not UTF-8 have lone surrogates, which are written as JSON's own escapes.
        return json.dumps(value, **options).encode("utf-8", "backslashreplace").decode()

    return Codec(encode, json.loads)


def _read_bool(text: str) -> bool:
    try:
        return {"true": True, "false": False}[text.lower()]
    except KeyError:
        raise ValueError(f"must be True or False, not {text!r}") from None


TEXT = Codec(str, str)
INTEGER = Codec(str, int)
# `True` and not `true`: the published client writes it as Python does, and requests equal its own byte for byte.
BOOLEAN = Codec(lambda value: "True" if value else "False", _read_bool)
# For the same reason each field has the spelling of JSON that the published client gives it.
JSON = _json()
JSON_UNESCAPED = _json(ensure_ascii=False)
JSON_COMPACT = _json(ensure_ascii=False, separators=(",", ":"))


def wire_field(
    name: str = "",
    *,
    codec: Codec | None = None,
    aliases: tuple[str, ...] = (),
    description: str = "",
    choices: tuple[str, ...] = (),
    caller: str = "",
    is_json: bool = False,
    is_shared: bool = False,
    **options: Any,
) -> Any:
    """Make a field with more on the wire than its class's rule says.

    Args:
        name: The name on the wire, if it is not the rule's.
        codec: How a form field is written; a field of a JSON object that has one is JSON text inside that JSON.
        aliases: Further names under which a reply may carry it.
        description: What the field means, as a tool's schema tells it to a model.
        choices: The values that a tool's schema allows.
        caller: The name of the public parameter that it comes from, if that is not the field's own.
        is_json: Whether its value is JSON already, which need not be looked through.
        is_shared: Whether equal texts may give one value, which then must not be changed.
        **options: As for `attrs.field`.
    """
    return attrs.field(
        metadata={
            "wire": name,
            "codec": codec,
            "aliases": aliases,
            "description": description,
            "choices": choices,
            "caller": caller,
            "is_json": is_json,
            "is_shared": is_shared,
        },
        **options,
    )


class ActionSpec(NamedTuple):
    """Facts about an action beside its fields.

    Attributes:
        name: The action's name on the wire.
        idempotent: Whether executing it twice does the same as once, so that it may be sent again.
        not_found_is_success: Whether "not found" on a later attempt means that an earlier one succeeded.
        query: Names of the fields that travel in the query instead of the form.
        missing_success_is_success: Whether an answer without `Success` counts as one.
        data_as_text: Whether `Data` is JSON text inside the JSON.
    """

    name: str
    idempotent: bool = False
    not_found_is_success: bool = False
    query: frozenset[str] = frozenset()
    missing_success_is_success: bool = False
    data_as_text: bool = False


class Action(Generic[DataT]):
    """A remote call whose fields are the request.

    `DataT` is the type of the reply's `Data`, None if it has none.
    """

    __slots__ = ()
    spec: ActionSpec


class Tool:
    """A call of a tool inside a session, whose fields are the arguments."""

    __slots__ = ()
    tool: str
    server: str
    raw_body: bool  # whether the local runtime takes or sends its bytes as the body of a direct call


ACTIONS: dict[str, type[Action[Any]]] = {}
TOOLS: dict[str, type[Tool]] = {}


@cache
def pascal(name: str) -> str:
    """Write a Python name in PascalCase: `session_id` -> `SessionId`."""
    return "".join(part.capitalize() for part in name.split("_"))


@cache
def camel(name: str) -> str:
    """Write a Python name in camelCase: `is_error` -> `isError`."""
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)


def _make_wire_class(cls: type[_T], rule: Callable[[str], str]) -> Any:
    made: Any = define(slots=False, frozen=True, kw_only=True)(cls)
    made.wire_rule = staticmethod(rule)
    return made


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(attrs.field, wire_field))
def action(name: str, *, query: tuple[str, ...] = (), **options: bool) -> Callable[[type[_T]], type[_T]]:
    """Register an attrs class as an action, with the options of `ActionSpec`."""

    # In a decorator, not in __init_subclass__: attrs makes a second class for the slots.
    def register(cls: type[_T]) -> type[_T]:
        made = _make_wire_class(cls, pascal)
        made.spec = ActionSpec(name, query=frozenset(query), **options)
        ACTIONS[name] = made
        return made  # type: ignore[no-any-return]

    return register


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(attrs.field, wire_field))
def tool(
    name: str, server: str, rule: Callable[[str], str] = camel, *, raw_body: bool = False
) -> Callable[[type[_T]], type[_T]]:
    """Register an attrs class as the arguments of a tool, named by a rule."""

    def register(cls: type[_T]) -> type[_T]:
        made = _make_wire_class(cls, rule)
        made.tool, made.server, made.raw_body = name, server, raw_body
        TOOLS[name] = made
        return made  # type: ignore[no-any-return]

    return register


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(attrs.field, wire_field))
def pascal_payload(cls: type[_T]) -> type[_T]:
    """Make an attrs class that travels as a JSON object with PascalCase keys."""
    return _make_wire_class(cls, pascal)  # type: ignore[no-any-return]


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(attrs.field, wire_field))
def camel_payload(cls: type[_T]) -> type[_T]:
    """Make an attrs class that travels as a JSON object with camelCase keys."""
    return _make_wire_class(cls, camel)  # type: ignore[no-any-return]


def wire_names(cls: Any) -> dict[str, str]:
    """Return the name on the wire of each attribute.

    A class without a rule of its own has camelCase names.
    """
    rule: Callable[[str], str] = getattr(cls, "wire_rule", camel)
    return {field.name: field.metadata.get("wire") or rule(field.name) for field in attrs.fields(cls)}


def caller_names(cls: Any) -> dict[str, str]:
    """Return the public parameter's name for each name on the wire."""
    return {wire: attrs.fields_dict(cls)[name].metadata.get("caller") or name for name, wire in wire_names(cls).items()}


class WireField(NamedTuple):
    """One field of an action, as the request carries it."""

    wire: str
    name: str
    type: Any
    codec: Codec | None
    required: bool


_FIELDS: dict[Any, tuple[WireField, ...]] = {}
_DATA_TYPES: dict[Any, Any] = {}


def wire_fields(cls: type[Action[Any]]) -> tuple[WireField, ...]:
    """Return the fields of an action, sorted by their names on the wire."""
    if cls not in _FIELDS:
        _FIELDS[cls] = _collect_wire_fields(cls)
    return _FIELDS[cls]


def _collect_wire_fields(cls: Any) -> tuple[WireField, ...]:
    attrs.resolve_types(cls)
    names, found = wire_names(cls), []
    for attribute in attrs.fields(cls):
        codec = attribute.metadata.get("codec") or _default_codec(attribute.type)
        required = attribute.default is attrs.NOTHING
        found.append(WireField(names[attribute.name], attribute.name, attribute.type, codec, required))
    return tuple(sorted(found))


def _default_codec(kind: Any) -> Codec | None:
    kinds = set(get_args(kind) if isinstance(kind, UnionType) else (kind,)) - {type(None)}
    for plain, codec in ((bool, BOOLEAN), (int, INTEGER), (str, TEXT)):
        if kinds == {plain}:
            return codec
    return None  # a nested object or a list, which is flattened instead


def data_type(cls: type[Action[Any]]) -> Any:
    """Return the type of the reply's `Data`, `NoneType` if it has none."""
    if cls not in _DATA_TYPES:
        _DATA_TYPES[cls] = _read_data_type(cls)
    return _DATA_TYPES[cls]


def _read_data_type(cls: type[Action[Any]]) -> Any:
    for base in getattr(cls, "__orig_bases__", ()):
        if getattr(base, "__origin__", None) is Action:
            return get_args(base)[0]
    raise TypeError(f"{cls.__name__} must derive from Action[...]")


def flatten(name: str, value: Any) -> dict[str, Any]:
    """Flatten objects into dotted names, and lists into indices from 1: `A.B.1`.

    Empty objects and lists leave no trace.
    """
    if isinstance(value, Mapping):
        pairs = [(f"{name}.{key}", item) for key, item in value.items() if item is not None]
    elif isinstance(value, (list, tuple)):
        pairs = [(f"{name}.{index}", item) for index, item in enumerate(value, 1)]
    else:
        return {name: value}
    return {key: item for nested, inner in pairs for key, item in flatten(nested, inner).items()}
