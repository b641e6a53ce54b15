"""Check the arguments of public methods and classes by their annotations.

This is the one mechanism that refuses wrong arguments, before anything is sent. `@checked_arguments()` on a class
checks its constructor and its public methods: types follow from the annotations, and the values of a parameter from
the rule of its name. An error names the parameter as the caller knows it, what came, and what is wanted.
"""

from __future__ import annotations

import builtins
import inspect
import math
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from functools import partial, wraps
from types import FunctionType, UnionType
from typing import Any, Literal, NamedTuple, TypeVar, Union, get_args, get_origin

from ._lazy_attrs import Postponed
from .errors import InvalidArgumentError

T = TypeVar("T")
Rule = Callable[[str, Any], None]

_MAX_SHOWN_CHARACTERS = 60
_MAX_VARIABLE_BYTES = (128 << 10) - 1  # of `NAME=value`: Linux starts no program with a longer string (MAX_ARG_STRLEN)
_SECRET_NAMES = frozenset(
    {"access_key_id", "access_key_secret", "api_key", "args", "content", "data", "envs", "security_token", "url"}
)
# contents, not names or arguments
_NAMES_WITH_NUL = frozenset({"args", "code", "content", "data", "edits", "stdin", "text"})
_PLAIN_TYPES = (str, int, float, bool, type(None))


def refusal(name: str, wanted: str, value: object) -> InvalidArgumentError:
    """Return the error for an argument, without the value of a secret one."""
    return InvalidArgumentError(f"{name} must be {wanted}, not {_describe(name, value)}")


def _describe(name: str, value: object) -> str:
    kind = type(value).__name__
    is_shown = isinstance(value, _PLAIN_TYPES) and (value is None or _root(name) not in _SECRET_NAMES)
    return f"{value!r:.{_MAX_SHOWN_CHARACTERS}} ({kind})" if is_shown else f"of type {kind}"


def _root(name: str) -> str:
    return name.partition("[")[0]


class Problem(NamedTuple):
    """What is wrong with an argument, or with a part of it."""

    name: str
    wanted: str
    came: str
    is_inside: bool = False  # the type is right, but not what the value contains


TypeCheck = Callable[[str, Any], Problem | None]


def _problem(name: str, wanted: str, value: object) -> Problem:
    return Problem(name, wanted, _describe(name, value))


class _Unknown:
    """Stands for a type that only type checkers import, which is not checked."""

    def __getattr__(self, name: str) -> _Unknown:
        return self

    def __getitem__(self, key: object) -> _Unknown:
        return self

    def __or__(self, other: object) -> _Unknown:
        return self

    __ror__ = __or__


class _Namespace(dict[str, Any]):
    """The names of a module, for evaluating its annotations."""

    def __missing__(self, name: str) -> Any:
        return getattr(builtins, name) if hasattr(builtins, name) else _Unknown()


def _type_check(kind: Any) -> tuple[str, TypeCheck]:
    """Return what a type is called in messages, and its check."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return _union_check(parts)
    if origin is Literal:
        return _choice_check(parts)
    if kind in _SIMPLE_CHECKS:
        return _SIMPLE_CHECKS[kind]
    base = origin or kind
    if base in (list, Sequence, Iterable):
        return _list_check(base, parts[0] if parts else Any)
    if base in (dict, Mapping):
        return _mapping_check(*(parts or (Any, Any)))
    if base is Callable:
        return _simple("a function", callable)
    # isinstance refuses a protocol that is not @runtime_checkable.
    if not isinstance(base, type) or getattr(base, "_is_protocol", False):
        return "anything", lambda name, value: None
    if issubclass(base, Enum) and issubclass(base, str):
        return _enum_check(base)
    return _instance_check(base)


def _instance_check(kind: type) -> tuple[str, TypeCheck]:
    article = "an" if kind.__name__[0] in "AEIOU" else "a"
    wanted = f"{article} {kind.__name__}"
    return _simple(wanted, lambda value: isinstance(value, kind))


def _enum_check(kind: type[Enum]) -> tuple[str, TypeCheck]:
    values = {member.value for member in kind}
    wanted = f"a {kind.__name__} ({', '.join(map(repr, sorted(values)))})"
    return _simple(wanted, lambda value: isinstance(value, kind) or (isinstance(value, str) and value in values))


def _choice_check(choices: tuple[Any, ...]) -> tuple[str, TypeCheck]:
    wanted = " or ".join(map(repr, choices))
    return _simple(wanted, lambda value: value in choices)


def _union_check(parts: tuple[Any, ...]) -> tuple[str, TypeCheck]:
    kinds = [part for part in parts if part is not type(None)]
    is_local_path = any((get_origin(kind) or kind) is os.PathLike for kind in kinds)
    checks = [_LOCAL_PATH_CHECK if kind is str and is_local_path else _type_check(kind) for kind in kinds]
    optional = len(kinds) < len(parts)
    wanted = " or ".join([*(words for words, _ in checks), *(["None"] if optional else [])])

    def check(name: str, value: Any) -> Problem | None:
        if value is None and optional:
            return None
        problems = [check(name, value) for _, check in checks]
        if None in problems:
            return None
        # A problem inside of a list or a text says more than that none of the types fits.
        inner = next((found for found in problems if found and (found.is_inside or found.name != name)), None)
        return inner or _problem(name, wanted, value)

    return wanted, check


def _list_check(base: Any, item: Any) -> tuple[str, TypeCheck]:
    words, check_item = _type_check(item)
    wanted = "a list" if words == "anything" else f"a list of {_plural(words)}"
    kinds: Any = (list, tuple) if base is list else base

    def check(name: str, value: Any) -> Problem | None:
        # A string is a sequence of strings, so it would pass as a list of its letters.
        if isinstance(value, (str, bytes, bytearray, Mapping)) or not isinstance(value, kinds):
            return _problem(name, wanted, value)
        if not isinstance(value, Sequence):  # an iterator can be read only once
            return None
        return next(filter(None, (check_item(f"{name}[{i}]", part) for i, part in enumerate(value))), None)

    return wanted, check


def _mapping_check(key: Any, item: Any) -> tuple[str, TypeCheck]:
    (_, check_key), (words, check_item) = _type_check(key), _type_check(item)
    wanted = "a dict" if words == "anything" else f"a dict of {_plural(words)}"

    def check(name: str, value: Any) -> Problem | None:
        if not isinstance(value, Mapping):
            return _problem(name, wanted, value)
        for field, part in value.items():
            problem = check_key(f"{name}[{field!r:.40}]", field) or check_item(f"{name}[{field!r:.40}]", part)
            if problem:
                return problem
        return None

    return wanted, check


def _plural(words: str) -> str:
    return f"{words.partition(' ')[2]}s" if words.startswith(("a ", "an ")) else words


class _SessionPath:
    """Stands for the type of a path in a session."""


_AS_PATHS: dict[Any, Any] = {str: _SessionPath, str | None: _SessionPath | None, Sequence[str]: Sequence[_SessionPath]}


def _check_text(name: str, value: Any, *, errors: str = "strict") -> Problem | None:
    if not isinstance(value, str):
        return _problem(name, "a string", value)
    # A C string ends at NUL, so no path, argument or variable of the session could hold one.
    if "\0" in value and _root(name) not in _NAMES_WITH_NUL:
        return _text_problem(name, "a string without NUL characters", value, value.index("\0"))
    if not value.isascii():
        try:
            value.encode(errors=errors)
        except UnicodeEncodeError as error:  # half of a surrogate pair, such as half an emoji
            return _text_problem(name, "a string of whole characters", value, error.start)
    return None


def _text_problem(name: str, wanted: str, text: str, position: int) -> Problem:
    return Problem(name, wanted, f"one with {text[position]!a} at position {position}", is_inside=True)


def _is_number(value: object) -> bool:
    # bool is a subclass of int.
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _simple(wanted: str, fits: Callable[[Any], bool]) -> tuple[str, TypeCheck]:
    return wanted, lambda name, value: None if fits(value) else _problem(name, wanted, value)


# On Linux a path may have bytes that are not UTF-8, which Python represents by lone surrogates (PEP 383); on Windows
# a local one may have any of them.
_LOCAL_PATH_CHECK: tuple[str, TypeCheck] = ("a path", partial(_check_text, errors="surrogatepass"))
_SIMPLE_CHECKS: dict[Any, tuple[str, TypeCheck]] = {
    Any: ("anything", lambda name, value: None),
    object: ("anything", lambda name, value: None),
    str: ("a string", _check_text),
    _SessionPath: ("a string", partial(_check_text, errors="surrogateescape")),
    bool: _simple("True or False", lambda value: isinstance(value, bool)),
    int: _simple("a whole number", lambda value: isinstance(value, int) and not isinstance(value, bool)),
    float: _simple("a number", _is_number),
    bytes: _simple("bytes", lambda value: isinstance(value, (bytes, bytearray, memoryview))),
}


def within(least: float, most: float, words: str) -> Rule:
    """Return a rule for numbers between two ends, which also refuses NaN."""

    def check(name: str, value: Any) -> None:
        if not least <= value <= most:
            raise refusal(name, words, value)

    return check


def check_variable(name: str, key: str, value: str) -> None:
    """Refuse an environment variable that no program could be started with.

    Args:
        name: The parameter.
        key: The variable's name.
        value: Its value, which no message shows.

    Raises:
        InvalidArgumentError: Says what is wrong with it.
    """
    for text, what in ((key, f"{name} has a name that"), (value, f"{name}[{key!r:.40}]")):
        if problem := _check_text("variable", text):
            raise InvalidArgumentError(f"{what} must be {problem.wanted}")
    if not key or "=" in key:
        raise InvalidArgumentError(f"{name} must not have {key!r:.40} as a name, which is empty or contains '='")
    size = len(key.encode()) + 1 + len(value.encode())
    if size > _MAX_VARIABLE_BYTES:
        raise InvalidArgumentError(
            f"{name}[{key!r:.40}] has {size:,} bytes with its name; a variable has {_MAX_VARIABLE_BYTES:,} at most",
            hint="Write it to a file, and set the variable to its path.",
        )


def _refuse_empty_path(name: str, value: Any) -> None:
    if value == "":  # Python and shells take it for the working directory, which is seldom meant
        raise refusal(name, "a path, such as '.' for the directory itself", value)


_POSITIVE = within(sys.float_info.min, math.inf, "positive")
POSITIVE_AND_FINITE = within(sys.float_info.min, sys.float_info.max, "positive and finite")
NOT_NEGATIVE = within(0, math.inf, "0 or more")
_ONE_OR_MORE = within(1, math.inf, "at least 1")
_RULES: dict[str, Rule] = {
    "timeout_ms": POSITIVE_AND_FINITE,  # the wire has no infinity
    **dict.fromkeys(("timeout_s", "poll_interval", "interval", "http_timeout"), _POSITIVE),
    **dict.fromkeys(("timeout", "wait_timeout", "read_timeout", "connect_timeout", "max_retries"), NOT_NEGATIVE),
    **dict.fromkeys(("depth", "max_count", "offset"), NOT_NEGATIVE),
    **dict.fromkeys(("local", "local_path", "remote", "remote_path"), _refuse_empty_path),
    **dict.fromkeys(("page", "limit", "page_number", "page_size", "max_results", "max_connections"), _ONE_OR_MORE),
}
# The contract writes `int` for these times, and its clients have always taken fractions as well.
_TIMES = frozenset({"connect_timeout", "read_timeout", "timeout"})
_HINTS = {
    "edits": "Write each as {'oldText': '...', 'newText': '...'}.",
    "session": "Pass the session itself; get(session_id).session finds it.",
    "cfg": "Write Config(endpoint=...).",
}


def recheck(value: object) -> None:
    """Check the attributes of a parameter object again.

    They may have been set after its construction.

    Raises:
        InvalidArgumentError: As the constructor would.
    """
    check: ArgumentCheck | None = getattr(type(value).__init__, "argument_check", None)
    if check is None:
        return
    attributes = vars(value)
    check((), {name: attributes[name] for name in check.names if name in attributes})
    for attribute in attributes.values():
        for part in attribute if isinstance(attribute, list) else (attribute,):
            recheck(part)


class _Parameter(NamedTuple):
    name: str
    check: TypeCheck | None
    rule: Rule | None


class ArgumentCheck:
    """The check of one function's arguments, made from its annotations at the first call."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._rules: Mapping[str, Rule | None] = {}
        self._paths: Sequence[str] = ()
        self._by_position: list[_Parameter] = []
        self._by_name: dict[str, _Parameter] | None = None
        self._takes_any = False

    def use_rules(self, rules: Mapping[str, Rule | None], paths: Sequence[str]) -> None:
        """Set the rules of some parameters, and which ones are paths in a session."""
        self._rules, self._paths = rules, paths

    @property
    def names(self) -> Iterable[str]:
        """The names of the parameters, without `self`."""
        return self._prepare() if self._by_name is None else self._by_name

    def __call__(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Check the arguments after `self`.

        Raises:
            InvalidArgumentError: If one has a wrong type or value.
            TypeError: If there is no parameter of that name.
        """
        by_name = self._prepare() if self._by_name is None else self._by_name
        for parameter, value in zip(self._by_position, args, strict=False):
            _check_one(parameter, value)
        for name, value in kwargs.items():
            if name in by_name:
                _check_one(by_name[name], value)
            elif not self._takes_any:
                raise self._unknown_name(name, list(by_name))

    def _unknown_name(self, name: str, known: list[str]) -> TypeError:
        from difflib import get_close_matches

        close = get_close_matches(name, known, 1, 0.5)
        advice = f"did you mean {close[0]!r}? It" if close else "it"
        return TypeError(f"{self._function.__name__} has no parameter {name!r}: {advice} takes {', '.join(known)}")

    def _prepare(self) -> dict[str, _Parameter]:
        function: Any = inspect.unwrap(self._function)
        names = vars(sys.modules[function.__module__])
        namespace, namespace_of_times = _Namespace(names), _Namespace(names, int=float)
        by_name: dict[str, _Parameter] = {}
        for index, parameter in enumerate(inspect.signature(function).parameters.values()):
            if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
                self._takes_any |= parameter.kind is parameter.VAR_KEYWORD
            elif index:  # the first is `self`
                names_of_types = namespace_of_times if parameter.name in _TIMES else namespace
                made = self._make_parameter(parameter.name, parameter.annotation, names_of_types)
                if parameter.kind is not parameter.KEYWORD_ONLY:
                    self._by_position.append(made)
                by_name[parameter.name] = made
        self._by_name = by_name
        return by_name

    def _make_parameter(self, name: str, annotation: Any, namespace: _Namespace) -> _Parameter:
        if name in self._rules and self._rules[name] is None:  # the method answers for it by itself
            return _Parameter(name, None, None)
        kind = eval(annotation, {}, namespace) if isinstance(annotation, str) else annotation  # noqa: S307 - our own source
        if name in self._paths:
            kind = _AS_PATHS[kind]
        is_known = kind is not inspect.Parameter.empty and not isinstance(kind, _Unknown)
        return _Parameter(name, _type_check(kind)[1] if is_known else None, self._rules.get(name, _RULES.get(name)))


def _check_one(parameter: _Parameter, value: Any) -> None:
    name, check, rule = parameter
    if check is not None and (problem := check(name, value)):
        message = f"{problem.name} must be {problem.wanted}, not {problem.came}"
        raise InvalidArgumentError(message, hint=_HINTS.get(name, ""))
    if rule is not None and value is not None:
        rule(name, value)


def checked_arguments(*paths: str, **rules: Rule | None) -> Callable[[type[T]], type[T]]:
    """Decorate a class so that its constructor and public methods check their arguments.

    Args:
        *paths: Parameters that are paths in a session, where names need not be UTF-8.
        **rules: Rules by parameter, which go before those of the name alone. None leaves a parameter to the method
            itself, because its contract has an answer of its own.
    """

    def decorate(cls: type[T]) -> type[T]:
        made: dict[object, Any] = {}  # an alias stays the same function as its original
        for name, member in list(vars(cls).items()):
            is_public = name == "__init__" or not name.startswith("_")
            if isinstance(member, FunctionType) and (is_public or hasattr(member, "argument_check")):
                if member not in made:
                    made[member] = _checked(member, rules, paths)
                setattr(cls, name, made[member])
            elif isinstance(member, Postponed) and name == "__init__":
                member.decorate(partial(_checked, rules=rules, paths=paths))
            elif isinstance(member, classmethod) and not name.startswith("_"):
                setattr(cls, name, classmethod(_checked(member.__func__, rules, paths)))
        return cls

    return decorate


def _checked(function: Any, rules: Mapping[str, Rule | None], paths: Sequence[str]) -> Any:
    check: ArgumentCheck | None = getattr(function, "argument_check", None)
    if check is not None:  # an error boundary, which checks inside
        check.use_rules(rules, paths)
        return function
    check = ArgumentCheck(function)
    check.use_rules(rules, paths)
    if inspect.iscoroutinefunction(function):

        @wraps(function)
        async def checked(self: Any, /, *args: Any, **kwargs: Any) -> Any:
            check(args, kwargs)
            return await function(self, *args, **kwargs)

        checked.argument_check = check  # type: ignore[attr-defined]
        return checked

    @wraps(function)
    def plainly_checked(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        check(args, kwargs)
        return function(self, *args, **kwargs)

    plainly_checked.argument_check = check  # type: ignore[attr-defined]
    return plainly_checked
