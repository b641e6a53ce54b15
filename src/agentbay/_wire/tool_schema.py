"""JSON Schemas of tools, made from the classes that read the arguments."""

from __future__ import annotations

from typing import Any, get_args, get_origin

import attrs

from .raw_calls import RAW_BODY
from .schema import Tool, wire_names

_JSON_TYPES = {str: "string", int: "integer", float: "number", bool: "boolean"}


def tool_schema(cls: type[Tool]) -> dict[str, Any]:
    """Return the JSON Schema of a tool's arguments, as MCP advertises it."""
    schema = _object_schema(cls)
    return {**schema, RAW_BODY: True} if cls.raw_body else schema


def _object_schema(cls: Any) -> dict[str, Any]:
    attrs.resolve_types(cls)
    names, fields = wire_names(cls), attrs.fields(cls)
    return {
        "type": "object",
        "properties": {names[field.name]: _property_schema(field) for field in fields},
        "required": [names[field.name] for field in fields if field.default is attrs.NOTHING],
    }


def _property_schema(field: attrs.Attribute[Any]) -> dict[str, Any]:
    schema = _type_schema(field.type)
    if field.metadata.get("description"):
        schema["description"] = field.metadata["description"]
    if field.metadata.get("choices"):
        schema["enum"] = list(field.metadata["choices"])
    if isinstance(field.default, (str, int, float)):  # neither required, nor absent, nor made by a factory
        schema["default"] = field.default
    return schema


def _type_schema(kind: Any) -> dict[str, Any]:
    """Return the schema of a type, where `X | None` means `X`."""
    (kind,) = [part for part in get_args(kind) if part is not type(None)] if _is_optional(kind) else (kind,)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is list:
        return {"type": "array", "items": _type_schema(arguments[0])}
    if origin is dict:
        return {"type": "object", "additionalProperties": _type_schema(arguments[1])}
    if attrs.has(kind):
        return _object_schema(kind)
    return {} if kind is Any else {"type": _JSON_TYPES[kind]}


def _is_optional(kind: Any) -> bool:
    return type(None) in get_args(kind)
