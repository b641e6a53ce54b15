"""Groups of commands, whose modules are imported when a command of them is used."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_group


class _LazyCommand(TyperCommand):
    """A command that is listed as it is, and imported when it is used."""

    def __init__(self, name: str, module: str, about: str) -> None:
        super().__init__(name, help=about, rich_markup_mode="rich")
        self._module = module

    def make_context(self, *args: Any, **more: Any) -> Any:
        """Return the context of the real command, which then stands for this one."""
        app = typer.Typer(rich_markup_mode="rich", add_completion=False)
        import_module(f"agentbay.cli.{self._module}").add_to(app)
        command = get_group(app).commands[self.name or ""]
        skip_conversions(command)
        return command.make_context(*args, **more)


def skip_conversions(command: Any) -> None:
    """Let the parameters of a command take values that have their type already.

    Typer would import pydantic to convert them, which takes 60 ms.
    """
    get_parameters = command.get_params  # with --help, which is not in `params`

    def get_prepared_parameters(context: Any) -> Any:
        parameters = get_parameters(context)
        for parameter in parameters:
            if not isinstance(parameter.process_value, partial):
                parameter.process_value = partial(_process_value, parameter, parameter.process_value)
        return parameters

    command.get_params = get_prepared_parameters
    for subcommand in getattr(command, "commands", {}).values():
        skip_conversions(subcommand)


def _process_value(parameter: Any, convert: Callable[[Any, Any], Any], context: Any, value: Any) -> Any:
    # Older releases of Typer have no such descriptor, and need no pydantic.
    annotation = getattr(getattr(parameter, "type_descriptor", None), "annotation", None)
    has_type = _is_list_of_text(value) if annotation == list[str] else value is None or type(value) is annotation
    if not has_type or (parameter.required and parameter.value_is_missing(value)):
        return convert(context, value)
    return value if parameter.callback is None else parameter.callback(context, parameter, value)


def _is_list_of_text(value: object) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(item, str) for item in value)


def format_examples(*lines: str) -> str:
    """Format examples for the end of a help page."""
    shown = [re.sub(r"#.*", lambda comment: f"[dim]{comment[0]}[/dim]", line) for line in lines]
    return "\n".join(["examples:", *shown])


def make_group(
    about: str, epilog: str = "", lazy: Mapping[str, tuple[str, str]] | None = None, **more: Any
) -> typer.Typer:
    """Create a group of commands.

    The list of commands one level up shows the first paragraph of `about`.

    Args:
        about: Help text.
        epilog: End of the help page.
        lazy: Commands that are imported when they are used, by name: a module of this package, whose function
            `add_to(app)` adds the command to a Typer app, and the line in the list of commands.
        **more: Further settings of `typer.Typer`.
    """

    class Group(TyperGroup):
        def __init__(self, **settings: Any) -> None:
            super().__init__(**settings)
            for name, (module, about_command) in (lazy or {}).items():
                self.add_command(_LazyCommand(name, module, about_command))

    about = "\n\n".join(" ".join(paragraph.split()) for paragraph in about.split("\n\n"))
    settings = {"help_option_names": ["-h", "--help"]}
    more.setdefault("no_args_is_help", True)
    return typer.Typer(cls=Group, help=about, epilog=epilog, context_settings=settings, rich_markup_mode="rich", **more)
