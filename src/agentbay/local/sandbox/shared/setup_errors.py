"""The error of a failed setup step, passed on to the service."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


class SetupFailed(Exception):
    """A step in setting up a sandbox failed.

    `code` is its errno.
    """

    def __init__(self, step: str, code: int, detail: str) -> None:
        super().__init__(f"{step}: {detail}")
        self.step, self.code, self.detail = step, code, detail


@contextlib.contextmanager
def setup_step(name: str) -> Iterator[None]:
    """Raise an OSError of the block as SetupFailed with the name of the step.

    A bare errno does not say what the machine lacks.
    """
    try:
        yield
    except OSError as error:
        raise SetupFailed(name, error.errno or 0, str(error)) from error
