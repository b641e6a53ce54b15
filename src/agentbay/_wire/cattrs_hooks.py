"""The cattrs converter with strict hooks: a value never gets another type silently."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, get_origin

import attrs
import cattrs
from cattrs.cols import is_mapping, list_structure_factory, mapping_structure_factory
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn, override

from .schema import Codec, wire_names


def _type_name(value: object) -> str:
    return type(value).__name__  # not the value, which may be a token


def _structure_text(value: object, _: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    raise TypeError(f"must be text, not {_type_name(value)}")


def _structure_int(value: object, _: object) -> int:
    if isinstance(value, bool):
        raise TypeError(f"must be a whole number, not {_type_name(value)}")
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return int(value)
    if isinstance(value, str) and value.lstrip("-").isdigit():
        return int(value)
    raise TypeError(f"must be a whole number, not {_type_name(value)}")


def _structure_float(value: object, _: object) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    raise TypeError(f"must be a number, not {_type_name(value)}")


def _structure_bool(value: object, _: object) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    raise TypeError(f"must be true or false, not {_type_name(value)}")


def _is_list(kind: Any) -> bool:
    origin: Any = get_origin(kind)
    return origin is list


def _list_hook(kind: Any) -> Callable[[Any, Any], Any]:
    read = list_structure_factory(kind, converter)

    def hook(value: Any, _: Any) -> Any:
        # Checked here, since cattrs takes any iterable: a text would become a list of its letters.
        if not isinstance(value, (list, tuple)):
            raise TypeError(f"must be a list, not {_type_name(value)}")
        return read(value, kind)

    return hook


def _mapping_hook(kind: Any) -> Callable[[Any, Any], Any]:
    read = mapping_structure_factory(kind, converter)

    def hook(value: Any, _: Any) -> Any:
        if not isinstance(value, Mapping):
            raise TypeError(f"must be an object, not {_type_name(value)}")
        return read(value, kind)

    return hook


def _read_json_text(kind: Any) -> Callable[[object, Any], Any]:
    return lambda value, _: converter.structure(_parse_json(value) if isinstance(value, str) else value, kind)


def _parse_json(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise TypeError("must be JSON text") from error


def _write_json_text(codec: Codec) -> Callable[[object], str | None]:
    return lambda value: None if value is None else codec.encode(converter.unstructure(value))


def _identity(value: object) -> object:
    return value


def _overrides(cls: Any) -> dict[str, Any]:
    attrs.resolve_types(cls)
    names, made = wire_names(cls), {}
    for field in attrs.fields(cls):
        hooks: dict[str, Any] = {}
        codec = field.metadata.get("codec")
        if codec is not None:
            hooks = {"struct_hook": _read_json_text(field.type), "unstruct_hook": _write_json_text(codec)}
        elif field.metadata.get("is_json"):
            hooks = {"unstruct_hook": _identity}
        made[field.name] = override(rename=names[field.name], **hooks)
    return made


def _structure_hook(cls: Any) -> Callable[[Any, Any], Any]:
    names = wire_names(cls)
    aliases = {alias: names[field.name] for field in attrs.fields(cls) for alias in field.metadata.get("aliases", ())}
    read: Callable[[Any, Any], Any] = make_dict_structure_fn(cls, converter, **_overrides(cls))

    def hook(value: Any, kind: Any) -> Any:
        if not isinstance(value, Mapping):
            raise TypeError(f"must be an object, not {_type_name(value)}")
        given: Mapping[str, Any] = value
        present = {aliases.get(key, key): item for key, item in given.items() if item is not None}
        return read(present, kind)

    return hook


def _unstructure_hook(cls: Any) -> Callable[[Any], Any]:
    write: Callable[[Any], dict[str, Any]] = make_dict_unstructure_fn(cls, converter, **_overrides(cls))
    return lambda value: {key: item for key, item in write(value).items() if item is not None}


converter = cattrs.Converter()
for _kind, _hook in ((str, _structure_text), (int, _structure_int), (float, _structure_float), (bool, _structure_bool)):
    converter.register_structure_hook(_kind, _hook)
converter.register_unstructure_hook(Enum, lambda member: member.value)
converter.register_structure_hook_factory(_is_list, _list_hook)
converter.register_structure_hook_factory(is_mapping, _mapping_hook)
converter.register_structure_hook_factory(attrs.has, _structure_hook)
converter.register_unstructure_hook_factory(attrs.has, _unstructure_hook)


def first_problem(error: BaseException, path: str) -> tuple[str, str]:
    """Return the converter's first problem, and its place by names on the wire."""
    if isinstance(error, cattrs.ClassValidationError):
        for inner, note in error.group_exceptions()[0]:
            return first_problem(inner, f"{path}.{wire_names(error.cl)[note.name]}")
    if isinstance(error, cattrs.IterableValidationError):
        for inner, item_note in error.group_exceptions()[0]:
            return first_problem(inner, f"{path}[{item_note.index!r:.80}]")
    return _describe(error), path


def _describe(error: BaseException) -> str:
    if isinstance(error, KeyError):
        return "is required"
    # What other errors say may hold the value itself.
    return str(error) if isinstance(error, TypeError) else "has an unusable value"
