"""Write actions into form and query fields, and read them back."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from .converter import MalformedError, structure, unstructure
from .schema import Action, Codec, flatten, wire_fields

FormFields = list[tuple[str, str]]


def write_fields(action: Action[Any], authorization: str) -> tuple[FormFields, FormFields]:
    """Return an action's query fields and form fields, each sorted by name.

    None is left out. `authorization` is a field like any other on this wire.
    """
    written = {"Authorization": authorization}
    for name, attribute, _, codec, _ in wire_fields(type(action)):
        value = getattr(action, attribute)
        if value is None:
            continue
        if codec is not None:
            written[name] = codec.encode(value if isinstance(value, (str, int)) else unstructure(value))
        else:
            written.update((key, str(item)) for key, item in flatten(name, unstructure(value)).items())
    query = action.spec.query
    pairs = sorted(written.items())
    return [pair for pair in pairs if pair[0] in query], [pair for pair in pairs if pair[0] not in query]


def read_fields(
    cls: type[Action[Any]], fields: Mapping[str, str], load_json: Callable[[str], Any] = json.loads
) -> Action[Any]:
    """Read an action from the fields of a request, query and form together.

    Args:
        load_json: Reads the fields that hold JSON.

    Raises:
        MalformedError: If a field is missing or cannot be read; names the field.
    """
    values: dict[str, Any] = {}
    for name, attribute, kind, codec, required in wire_fields(cls):
        if codec is None and (found := _read_flattened(name, fields)) is not None:
            values[attribute] = structure(found, kind, path=name)
        elif codec is not None and name in fields:
            values[attribute] = _read_field(name, kind, codec, fields[name], load_json)
        elif required:
            raise MalformedError("is required", name)
    return cls(**values)


def _read_field(name: str, kind: Any, codec: Codec, text: str, load_json: Callable[[str], Any]) -> Any:
    try:
        value = load_json(text) if codec.decode is json.loads else codec.decode(text)
    except (ValueError, RecursionError) as error:
        raise MalformedError(str(error), name) from error
    return structure(value, kind, path=name)


def _read_flattened(name: str, fields: Mapping[str, str]) -> dict[str, Any] | list[str] | None:
    prefix = f"{name}."
    found = {key.removeprefix(prefix): value for key, value in fields.items() if key.startswith(prefix)}
    if found and all(key.isdecimal() for key in found):
        # By number: as texts, 10 would come before 2.
        return [found[key] for key in sorted(found, key=int)]
    return found or None
