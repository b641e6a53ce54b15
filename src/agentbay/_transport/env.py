"""Check environment variables, and read the text of their tools."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from .._arguments import check_variable, refusal
from .._wire.tools import EnvironmentVariable
from ..errors import ReplyError


def make_variables(envs: Mapping[str, str]) -> list[EnvironmentVariable]:
    """Return environment variables as the tool takes them.

    Raises:
        ValueError: If there are none, or a name or value is not a string.
        InvalidArgumentError: If `envs` is not a dict, or the kernel accepts no such name or value.
    """
    if not envs:
        raise ValueError("envs must not be empty")
    if not isinstance(envs, Mapping):
        raise refusal("envs", "a dict of strings", envs)
    for name, value in envs.items():
        if not isinstance(name, str):
            raise ValueError(
                f"All environment variable keys must be strings, got {type(name).__name__} for key '{name}'"
            )
        if not isinstance(value, str):
            raise ValueError(
                f"All environment variable values must be strings, got {type(value).__name__} for key '{name}'"
            )
        check_variable("envs", name, value)
    return [EnvironmentVariable(key=name, value=value) for name, value in envs.items()]


def check_keys(keys: Sequence[str] | None) -> list[str] | None:
    """Return the names of the wanted variables, or None for all.

    Raises:
        ValueError: If they are not a sequence of strings.
    """
    names = () if keys is None else keys
    if isinstance(names, str) or not isinstance(names, Sequence) or not all(isinstance(name, str) for name in names):
        raise ValueError("keys must be a list of strings")
    return list(names) or None


def read_variables(text: str, request_id: str) -> dict[str, str]:
    """Read a JSON object of names and values, without those that are null.

    Raises:
        ReplyError: If the text is no such object. The message quotes none of it, since values may be secret.
    """
    try:
        found = json.loads(text or "{}")
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise ReplyError(
            f"The text of get_env cannot be understood: its {len(text)} characters are not a JSON object.",
            request_id=request_id,
        )
    return {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in found.items()
        if value is not None
    }
