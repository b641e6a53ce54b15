"""Results of reading and setting environment variables."""

from __future__ import annotations

from .._lazy_attrs import define, field
from .base import BaseResult, dict_or_empty


def _repr_names(envs: dict[str, str]) -> str:
    return f"<{', '.join(sorted(envs))}>" if envs else "{}"


@define(slots=False)
class EnvResult(BaseResult):
    """Environment variables by name.

    The repr shows the names alone, since values are often secret.
    """

    envs: dict[str, str] = field(default=None, converter=dict_or_empty, repr=_repr_names)
    error_message: str = ""
