"""Strict conversion between JSON values and Python objects.

A value never gets another type silently. Lists, objects, classes and plain values are read and written here, since
cattrs compiles functions for each class, which most programs would wait for. It does the rest, such as enumerations.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Mapping
from functools import cache, lru_cache
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, Union, cast, get_args, get_origin

import attrs

if TYPE_CHECKING:
    import cattrs

from .schema import Codec, EncodedJson, wire_names

_SHARED_TEXTS = 4  # of each field that equal texts give one value
_T = TypeVar("_T")
_Reader = Callable[[Any], Any]


class MalformedError(ValueError):
    """A value does not have the shape that its field requires.

    Attributes:
        problem: What is wrong, without the value, which may be secret.
        field: Where, by names on the wire: `Data.Contexts[1].id`, or "" for a text that is no JSON object at all.
    """

    def __init__(self, problem: str, field: str = "") -> None:
        super().__init__(problem, field)
        self.problem = problem
        self.field = field

    def __str__(self) -> str:
        return f"{self.field}: {self.problem}" if self.field else self.problem


def structure(value: object, kind: type[_T] | Any, path: str = "Data") -> _T:
    """Read a JSON value as an object of a type.

    Unknown keys are ignored, and null counts as absent.

    Raises:
        MalformedError: If a value has another type; names its place, which starts at `path`.
    """
    try:
        return _read(value, kind)  # type: ignore[no-any-return]
    except _READ_ERRORS as error:
        raise _malformed(error, path) from error


def unstructure(value: object) -> Any:
    """Write an object as a JSON value, without what is None."""
    return _writer(cast(Hashable, type(value)))(value)


_READ_ERRORS = (AttributeError, RecursionError, TypeError, ValueError)


def _malformed(error: Exception, place: str) -> MalformedError:
    """Return the error for a value in which an error arose."""
    if isinstance(error, MalformedError):
        return MalformedError(error.problem, place + error.field)
    # What other errors say may hold the value itself.
    return MalformedError(str(error) if isinstance(error, TypeError) else "has an unusable value", place)


@cache
def _converter() -> cattrs.BaseConverter:
    import cattrs  # with the first value that needs it, since it takes as long to import as the rest of the package

    converter = cattrs.BaseConverter(detailed_validation=False)
    for plain in _PLAIN_READERS:
        converter.register_structure_hook(plain, _read)
    converter.register_structure_hook_factory(lambda kind: _own_reader(kind) is not None, lambda _: _read)
    converter.register_unstructure_hook_factory(attrs.has, lambda _: _write_object)
    return converter


def _read(value: Any, kind: Any) -> Any:
    return _reader(kind)(value)


@cache
def _reader(kind: Any) -> _Reader:
    """Return the function that reads values of a type."""
    if read := _own_reader(kind):
        return read
    hook = _converter().get_structure_hook(kind)
    return lambda value: hook(value, kind)


def _own_reader(kind: Any) -> _Reader | None:
    """Return the function of this module that reads values of a type."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is list:
        return _list_reader(_reader(inner[0]))
    if origin is dict:
        return _mapping_reader(*map(_reader, inner))
    if origin in (Union, UnionType) and NoneType in inner and len(inner) == 2:
        return _optional_reader(_reader(inner[inner[0] is NoneType]))
    return _object_reader(kind) if attrs.has(kind) else _PLAIN_READERS.get(kind)


@cache
def _writer(kind: type) -> Callable[[Any], Any]:
    """Return the function that writes values of a class."""
    if kind in _PLAIN_KINDS:
        return lambda value: value
    if kind is list:
        return lambda value: [unstructure(item) for item in value]
    if kind is dict:
        return lambda value: {key: unstructure(item) for key, item in value.items()}
    return _write_object if attrs.has(kind) else _converter().unstructure


def _type_name(value: object) -> str:
    return type(value).__name__  # not the value, which may be a token


def _read_text(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    raise TypeError(f"must be text, not {_type_name(value)}")


def _read_int(value: object) -> int:
    if isinstance(value, bool):
        raise TypeError(f"must be a whole number, not {_type_name(value)}")
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return int(value)
    if isinstance(value, str) and value.lstrip("-").isdigit():
        return int(value)
    raise TypeError(f"must be a whole number, not {_type_name(value)}")


def _read_float(value: object) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    raise TypeError(f"must be a number, not {_type_name(value)}")


def _read_bool(value: object) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    raise TypeError(f"must be true or false, not {_type_name(value)}")


_PLAIN_READERS: dict[Any, _Reader] = {
    Any: lambda value: value,
    str: _read_text,
    int: _read_int,
    float: _read_float,
    bool: _read_bool,
}
_PLAIN_KINDS = (str, int, float, bool, NoneType, EncodedJson)


def _optional_reader(read: _Reader) -> _Reader:
    return lambda value: None if value is None else read(value)


def _list_reader(read: _Reader) -> _Reader:
    def read_list(value: Any) -> list[Any]:
        # Not any iterable: a text would become a list of its letters.
        if not isinstance(value, (list, tuple)):
            raise TypeError(f"must be a list, not {_type_name(value)}")
        found = []
        for index, item in enumerate(value):
            try:
                found.append(read(item))
            except _READ_ERRORS as error:
                raise _malformed(error, f"[{index}]") from error
        return found

    return read_list


def _mapping_reader(read_key: _Reader, read: _Reader) -> _Reader:
    def read_mapping(value: Any) -> dict[Any, Any]:
        if not isinstance(value, Mapping):
            raise TypeError(f"must be an object, not {_type_name(value)}")
        found = {}
        for key, item in value.items():
            try:
                found[read_key(key)] = read(item)
            except _READ_ERRORS as error:
                raise _malformed(error, f"[{key!r:.80}]") from error
        return found

    return read_mapping


class _FieldReader(NamedTuple):
    argument: str
    name: str
    aliases: tuple[str, ...]
    read: _Reader
    required: bool

    def find(self, given: Mapping[str, Any]) -> Any:
        """Return the value, or None if there is none under any of the names."""
        value = given.get(self.name)
        for alias in self.aliases:
            value = given.get(alias) if value is None else value
        return value


def _object_reader(cls: Any) -> _Reader:
    names, fields = wire_names(attrs.resolve_types(cls)), []
    for field in attrs.fields(cls):
        if field.init:
            is_text, is_shared = field.metadata.get("codec"), field.metadata.get("is_shared", False)
            read = _json_text_reader(field.type, is_shared=is_shared) if is_text else _reader(field.type)
            aliases, required = field.metadata.get("aliases", ()), field.default is attrs.NOTHING
            fields.append(_FieldReader(field.alias, names[field.name], aliases, read, required))

    def read_object(value: Any) -> Any:
        if not isinstance(value, Mapping):
            raise TypeError(f"must be an object, not {_type_name(value)}")
        given: Mapping[str, Any] = value
        arguments = {}
        for field in fields:
            item = field.find(given)
            if item is None:
                if field.required:
                    raise MalformedError("is required", f".{field.name}")
                continue
            try:
                arguments[field.argument] = field.read(item)
            except _READ_ERRORS as error:
                raise _malformed(error, f".{field.name}") from error
        return cls(**arguments)

    return read_object


def _json_text_reader(kind: Any, *, is_shared: bool) -> _Reader:
    read = _reader(kind)

    def read_text(text: str) -> Any:
        return read(_parse_json(text))

    # A list of tools is read with each new session, and takes longer than the rest of that call.
    read_text = lru_cache(_SHARED_TEXTS)(read_text) if is_shared else read_text
    return lambda value: read_text(value) if isinstance(value, str) else read(value)


def _parse_json(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise TypeError("must be JSON text") from error


class _FieldWriter(NamedTuple):
    attribute: str
    name: str
    codec: Codec | None
    is_json: bool


@cache
def _field_writers(cls: Any) -> list[_FieldWriter]:
    names = wire_names(cls)
    return [
        _FieldWriter(field.name, names[field.name], field.metadata.get("codec"), bool(field.metadata.get("is_json")))
        for field in attrs.fields(cls)
        if field.init
    ]


def _write_object(value: Any) -> dict[str, Any]:
    written = {}
    for attribute, name, codec, is_json in _field_writers(cast(Hashable, type(value))):
        item = getattr(value, attribute)
        if item is not None:
            item = item if is_json else unstructure(item)
            written[name] = codec.encode(item) if codec else item
    return written
