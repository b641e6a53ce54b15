"""The base class of all errors."""

from __future__ import annotations

from typing import Any, TypeVar

_E = TypeVar("_E", bound="AgentBayError")
_SENTENCE_ENDINGS = (".", "!", "?", ":")  # after which a hint needs no further full stop


class AgentBayError(Exception):
    """Base of every error that this package raises on purpose.

    Attributes:
        message: What happened, in one sentence.
        hint: What to do about it, or "".
        action: The remote call that failed, such as `GetSession`, or "".
        request_id: The service's id of the failed request, or "".
        code: The service's error code, or "".
        status_code: The HTTP status of the answer, or None if there was none.
        retryable: Whether the same call may succeed when sent again later.
        extra: Any further keywords given to the constructor.
    """

    __module__ = "agentbay.errors"  # where it is public, and what tracebacks show

    default_message = ""
    retryable = False

    def __init__(
        self,
        message: str | None = None,
        *args: object,
        hint: str = "",
        action: str = "",
        request_id: str = "",
        code: str = "",
        status_code: int | None = None,
        **kwargs: Any,
    ) -> None:
        self.message = message if message is not None else (self.default_message or type(self).__name__)
        super().__init__(self.message, *args)
        self.hint = hint
        self.action = action
        self.request_id = request_id
        self.code = code
        self.status_code = status_code
        self.extra = kwargs

    def __str__(self) -> str:
        if not self.hint:
            return self.message
        return f"{self.message}{'' if self.message.endswith(_SENTENCE_ENDINGS) else '.'} {self.hint}"

    def __reduce__(self) -> tuple[Any, ...]:
        # Exception.__reduce__ calls cls(*args) and so loses keyword-only arguments.
        return _rebuild, (type(self), self.args, self.__dict__)

    def context(self) -> dict[str, Any]:
        """Return the facts that locate the failure, for an error that wraps it."""
        return {
            "hint": self.hint,
            "action": self.action,
            "request_id": self.request_id,
            "code": self.code,
            "status_code": self.status_code,
        }


def _rebuild(cls: type[_E], args: tuple[Any, ...], state: dict[str, Any]) -> _E:
    # Without __init__, whose parameters differ from class to class.
    error = cls.__new__(cls, *args)
    error.args = args
    for name, value in state.items():
        setattr(error, name, value)  # OSError keeps some of them outside of __dict__
    return error
