"""The schemas of tools, and that the classes read exactly what they advertise."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from agentbay._wire.converter import MalformedError, structure
from agentbay._wire.registry import TOOLS
from agentbay._wire.schema import Tool, camel, pascal
from agentbay._wire.tool_schema import tool_schema
from agentbay._wire.tools import GetEnv, SetEnv, Shell, ToolEntry
from agentbay.local.handlers.tool_calls import tool_catalogue
from agentbay.local.sessions.images import PHONE_IMAGE

SCHEMAS = [(cls, tool_schema(cls)) for cls in TOOLS.values()]
PROPERTIES = [
    pytest.param(cls, schema, name, id=f"{cls.tool}-{name}") for cls, schema in SCHEMAS for name in schema["properties"]
]


def example(schema: dict[str, Any]) -> Any:
    """Make a value that a schema describes, different from any default."""
    if "enum" in schema:
        return next(value for value in schema["enum"] if value != schema.get("default"))
    match schema.get("type"):
        case "string":
            return "an example"
        case "integer":
            return 77
        case "number":
            return 7.5
        case "boolean":
            return not schema.get("default", False)
        case "array":
            return [example(schema["items"])]
        case "object" if "properties" in schema:
            return {name: example(part) for name, part in schema["properties"].items()}
        case "object":
            return {"name": example(schema["additionalProperties"])}
    raise AssertionError(f"no example for {schema}")


def wrong_example(schema: dict[str, Any]) -> Any:
    """Make a value of another type than a schema describes."""
    return "neither number nor list" if schema["type"] != "string" else ["a list"]


def required_arguments(schema: dict[str, Any]) -> dict[str, Any]:
    return {name: example(schema["properties"][name]) for name in schema["required"]}


@pytest.mark.parametrize(("cls", "schema", "name"), PROPERTIES)
def test_advertised_properties_are_read(cls: type[Tool], schema: dict[str, Any], name: str) -> None:
    """Sending an advertised property changes exactly one field of the arguments."""
    least = required_arguments(schema)
    sent = {**least, name: example(schema["properties"][name])}
    default: Any = structure(least, cls)
    read: Any = structure(sent, cls)
    changed = [field.name for field in attrs.fields(cls) if getattr(read, field.name) != getattr(default, field.name)]
    assert len(changed) == (name not in schema["required"])


@pytest.mark.parametrize(("cls", "schema", "name"), PROPERTIES)
def test_values_of_another_type_are_refused(cls: type[Tool], schema: dict[str, Any], name: str) -> None:
    """An advertised property with a value of another type is refused by its name."""
    with pytest.raises(MalformedError) as caught:
        structure({**required_arguments(schema), name: wrong_example(schema["properties"][name])}, cls, path="Args")
    assert caught.value.field == f"Args.{name}"


@pytest.mark.parametrize(("cls", "schema"), [(cls, schema) for cls, schema in SCHEMAS if schema["required"]])
def test_missing_required_properties_are_refused(cls: type[Tool], schema: dict[str, Any]) -> None:
    """Arguments without a required property are refused, and the message names it."""
    for name in schema["required"]:
        least = required_arguments(schema)
        del least[name]
        with pytest.raises(MalformedError) as caught:
            structure(least, cls, path="Args")
        assert (caught.value.field, caught.value.problem) == (f"Args.{name}", "is required")


@pytest.mark.parametrize(("cls", "schema"), SCHEMAS)
def test_nothing_else_is_read(cls: type[Tool], schema: dict[str, Any]) -> None:
    """No spelling of a field's name is read but the advertised one."""
    least = required_arguments(schema)
    names = {field.name for field in attrs.fields(cls)}
    spellings = {spelling for name in names for spelling in (name, camel(name), pascal(name), name.upper())}
    hidden = dict.fromkeys(spellings - set(schema["properties"]), object())
    assert structure({**least, **hidden}, cls) == structure(least, cls)


@pytest.mark.parametrize("entry", tool_catalogue(PHONE_IMAGE), ids=lambda entry: entry.name)
def test_tools_are_described(entry: ToolEntry) -> None:
    """Every tool of the local runtime and every property has a description in words."""
    assert entry.description
    pending = [entry.input_schema]
    while pending:
        for part in pending.pop().get("properties", {}).values():
            assert part["description"].endswith(".")
            pending.append(part.get("items", part))


def test_schemas_have_items_and_nested_properties() -> None:
    """Arrays name their items, and objects their properties or values."""
    assert tool_schema(GetEnv)["properties"]["keys"] == {
        "type": "array",
        "items": {"type": "string"},
        "description": "Names of the variables; all if absent.",
    }
    item = tool_schema(SetEnv)["properties"]["envs"]["items"]
    assert (item["required"], set(item["properties"])) == (["key", "value"], {"key", "value"})
    envs = tool_schema(Shell)["properties"]["envs"]
    assert (envs["type"], envs["additionalProperties"]) == ("object", {"type": "string"})


def test_names_follow_the_rule_of_the_wire() -> None:
    """A field of several words is advertised by the name that is read."""
    assert "excludePatterns" in tool_schema(TOOLS["search_files"])["properties"]
    assert "dryRun" in tool_schema(TOOLS["edit_file"])["properties"]
