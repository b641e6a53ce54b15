"""The result of code, read from every form that services send."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, strategies as st

from agentbay import AgentBayError, CodeError, CodeTimeoutError, EnhancedCodeExecutionResult, ReplyError
from agentbay._transport.code import make_run_code, read_code_result
from agentbay._transport.code_stream import CodeEventCollector
from agentbay._transport.reply import Reply
from agentbay._wire.tools import ToolReply

WRAPPED = {"executionError": "", "result": [], "stdout": [], "stderr": [], "traceId": ""}
KEYS = [*WRAPPED, "isError", "content", "logs", "results", "error", "text", "text/plain", "image/png", "name", "value"]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=12,
)


def read(
    value: object, *, is_error: bool = False, structured: dict[str, Any] | None = None
) -> EnhancedCodeExecutionResult:
    text = value if isinstance(value, str) else json.dumps(value)
    tool = ToolReply(content=[{"type": "text", "text": text}], is_error=is_error, structured_content=structured)
    return read_code_result(Reply(action="CallMcpTool", data=tool, request_id="R-1"))


def test_success() -> None:
    """The current form is read with all its fields."""
    item = {"isMainResult": True, "text/plain": "42"}
    result = read({**WRAPPED, "result": [json.dumps(item)], "stdout": ["hello\n"], "execution_count": 1,
                   "execution_time": 0.12})  # fmt: skip
    assert result.success
    assert (result.request_id, result.execution_count, result.execution_time) == ("R-1", 1, 0.12)
    assert (result.logs.stdout, result.result, result.error, result.error_message) == (["hello\n"], "42", None, "")


@pytest.mark.parametrize("wrap", [json.dumps, lambda item: json.dumps(json.dumps(item)), lambda item: item])
def test_items_are_wrapped_in_several_ways(wrap: Any) -> None:
    """An item may be an object, its JSON, or the JSON of its JSON."""
    (shown,) = read({**WRAPPED, "result": [wrap({"text/html": "<b>x</b>", "isMainResult": True})]}).results
    assert (shown.html, shown.is_main_result, shown.formats()) == ("<b>x</b>", True, ["html"])


@pytest.mark.parametrize("item", ["plain text", "123", 123, None, [1]])
def test_items_that_are_no_objects_are_text(item: object) -> None:
    """An item that is no object is shown as text."""
    (shown,) = read({**WRAPPED, "result": [item]}).results
    assert shown.text == str(item)


@pytest.mark.parametrize(
    ("key", "field"),
    [
        ("text/plain", "text"), ("text", "text"), ("text/html", "html"), ("html", "html"),
        ("text/markdown", "markdown"),
        ("image/png", "png"), ("png", "png"), ("image/jpeg", "jpeg"), ("image/svg+xml", "svg"), ("svg", "svg"),
        ("application/json", "json"), ("json", "json"), ("text/latex", "latex"), ("latex", "latex"), ("chart", "chart"),
        ("application/vnd.vegalite.v4+json", "chart"), ("application/vnd.vegalite.v5+json", "chart"),
        ("application/vnd.vegalite.v5.20.1+json", "chart"), ("application/vnd.vegalite.v6.json", "chart"),
    ],
)  # fmt: skip
def test_formats(key: str, field: str) -> None:
    """Each format is found by its MIME type or its short name."""
    (shown,) = read({**WRAPPED, "result": [{key: "x"}]}).results
    assert getattr(shown, field) == "x"
    assert shown.formats() == [field]
    assert list(shown.data.values()) == ["x"]
    assert list(shown._mime_bundle()) == list(shown.data)
    assert shown._repr_mimebundle_()


def test_unknown_formats_are_kept() -> None:
    """An unknown MIME type is kept."""
    (shown,) = read({**WRAPPED, "result": [{"application/x-new": {"a": 1}}]}).results
    assert shown.data == {"application/x-new": {"a": 1}}


@pytest.mark.parametrize("is_error", [False, True])
def test_failed_code(is_error: bool) -> None:
    """Failed code has its error, whether or not the tool reports one."""
    traceback = "Traceback (most recent call last)\nZeroDivisionError: division by zero\n"
    result = read(
        {**WRAPPED, "executionError": "ZeroDivisionError: division by zero", "stdout": ["a"], "stderr": [traceback]},
        is_error=is_error,
    )
    assert not result
    assert result.error_message == "ZeroDivisionError: division by zero"
    assert result.error is not None
    assert (result.error.name, result.error.value) == ("ZeroDivisionError", "division by zero")
    assert result.error.traceback == traceback
    assert result.logs.stdout == ["a"]
    assert result.exception is None
    assert result.unwrap() is result
    with pytest.raises(CodeError, match="division by zero"):
        result.check()


def test_failed_code_without_a_name() -> None:
    """An error without a name comes from the last line of the standard error."""
    result = read({**WRAPPED, "stderr": ["Traceback ...\nNameError: name 'x' is not defined\n"]}, is_error=True)
    assert result.error is not None
    assert result.error.name == "NameError"
    assert read(WRAPPED, is_error=True).error_message == "ExecutionError: Failed to run code"


def test_timeout() -> None:
    """A timeout in the structured answer is a CodeTimeoutError."""
    value = {**WRAPPED, "executionError": "TimeoutError: the code ran longer than 1 s"}
    result = read(value, is_error=True, structured={"timedOut": True, "truncated": True})
    assert isinstance(result.exception, CodeTimeoutError)
    assert result.truncated


def test_older_form() -> None:
    """The form of older services is read."""
    result = read(
        {
            "logs": {"stdout": ["a"], "stderr": ["b"]},
            "results": [{"text": "1", "is_main_result": True}, {"png": "iVBOR"}],
            "execution_count": 3,
            "execution_time": 2,
        }
    )
    assert result.success
    assert (result.logs.stdout, result.logs.stderr, result.result) == (["a"], ["b"], "1")
    assert (result.results[1].png, result.execution_count, result.execution_time) == ("iVBOR", 3, 2.0)
    failed = read({"results": [], "error": {"name": "E", "value": "v", "traceback": "t"}})
    assert not failed
    assert failed.error_message == "E: v"


@pytest.mark.parametrize("text", ["", "123", "[1]", "plain"])
def test_plain_text(text: str) -> None:
    """Bare text is both output and result."""
    result = read(text)
    assert (result.success, result.logs.stdout, result.result) == (True, [text], text)


def test_envelope_inside_the_text() -> None:
    """An answer may be wrapped once more."""
    inner = json.dumps({**WRAPPED, "result": ["1"]})
    assert read({"content": [{"text": inner}]}).result == "1"
    assert read({"content": [{"text": "plain"}]}).result == "plain"
    with pytest.raises(CodeError, match="Error in response: a; b"):
        read({"isError": True, "content": [{"text": "a"}, {"text": "b"}]})


def test_refusals() -> None:
    """Code that could not run is an error, as is an unreadable answer."""
    with pytest.raises(CodeError, match="no kernel"):
        read("no kernel", is_error=True)
    with pytest.raises(CodeError, match="Failed to run code"):
        read("", is_error=True)
    with pytest.raises(ReplyError, match="Unknown response format"):
        read({"executionError": "x"})


@given(VALUES, st.booleans())
def test_anything(value: object, is_error: bool) -> None:
    """Any text gives a result or one of our errors."""
    try:
        result = read(value, is_error=is_error)
    except AgentBayError:
        return
    assert isinstance(result.result, str)
    assert result.success == (result.error is None)
    assert not (is_error and result.success)
    result._repr_mimebundle_()


@given(st.dictionaries(st.sampled_from(["eventType", "chunk", "result", "error", "status", "executionError"]),
                       VALUES | st.sampled_from(["stdout", "stderr", "result", "error", "failed"])))  # fmt: skip
def test_any_event(data: dict[str, Any]) -> None:
    """Any event stream gives a result."""
    recording = CodeEventCollector()
    recording.add_event(data)
    assert isinstance(recording.make_result(data, "R-1").result, str)


@pytest.mark.parametrize(
    ("given", "name"),
    [("python", "python"), (" PY ", "python"), ("Python3", "python"), ("js", "javascript"), ("node", "javascript"),
     ("NodeJS", "javascript"), ("R", "r"), ("Java", "java"), ("Ruby", "ruby"), ("jupyter:Ir", "jupyter:ir")],
)  # fmt: skip
def test_aliases_of_languages(given: str, name: str) -> None:
    """Aliases become the language's own name, and unknown names go to the service."""
    assert make_run_code("1", given).language == name


@pytest.mark.parametrize("language", ["", " ", None])
def test_a_missing_language_is_refused(language: str | None) -> None:
    """Code without a language and without a context is refused."""
    with pytest.raises(CodeError, match="Unsupported language"):
        make_run_code("1", language)
