"""The bounded output of one execution, and the answer made of it."""

from __future__ import annotations

import codecs
import json
import time
from typing import Any

from agentbay._lazy_attrs import define
from agentbay.local.kernels.byte_budget import ByteBudget
from agentbay.local.large_json_encoder import JsonText, dump_json, encode_pieces
from agentbay.local.tail import last_pieces
from agentbay.models.command import network_hint

MIB = 1 << 20
STREAM_LIMIT_BYTES = 8 * MIB  # kept of each stream
_DISPLAY_LIMIT_BYTES = 32 * MIB  # kept of all that is displayed at a time
_MAX_DISPLAYS = 1000  # at a time
_MAX_DISPLAY_ID_CHARS = 200
_MAX_ERROR_NAME_CHARS = 200
_MAX_ERROR_CHARS = 320 << 10  # kept of the message of an error, and of its traceback; kernels keep less


class StreamBuffer:
    """The text of one stream.

    Bytes that are not UTF-8 are replaced, and those beyond the limit are counted.
    """

    def __init__(self, budget: ByteBudget | None = None) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._budget = budget
        self._left = STREAM_LIMIT_BYTES
        self.parts: list[str] = []
        self.dropped_bytes = 0

    def feed(self, data: bytes) -> str:
        """Add bytes, and return the new text."""
        kept = data[: self._left]
        if self._budget is not None and not self._budget.try_reserve(len(kept)):
            kept = b""
        self._left -= len(kept)
        self.dropped_bytes += len(data) - len(kept)
        return self._add(self._decoder.decode(kept))

    def finish(self) -> str:
        """Return the last text: an incomplete character, and how much is missing."""
        text = self._add(self._decoder.decode(b"", final=True))
        if self.dropped_bytes:
            text += self._add(
                f"\n[cut: {self.dropped_bytes} bytes more than the {STREAM_LIMIT_BYTES // MIB} MiB that are kept]\n"
            )
        return text

    @property
    def kept_bytes(self) -> int:
        """How many bytes are reserved in the budget."""
        return STREAM_LIMIT_BYTES - self._left

    def tail(self, size: int) -> str:
        """Return the last `size` characters."""
        return "".join(last_pieces(self.parts, size))[-size:]

    def _add(self, text: str) -> str:
        if text:
            self.parts.append(text)
        return text


class EncodedData(dict[str, Any]):
    """Large displayed content by MIME type, with its JSON.

    Attributes:
        json: The JSON object without its last bracket.
        size: Its bytes in UTF-8.
    """

    def __init__(self, data: dict[str, Any]) -> None:
        super().__init__(data)
        pieces = [piece.encode("utf-8", "replace") for piece in encode_pieces(data)]
        self.size = sum(len(piece) for piece in pieces)
        self.json = "".join(piece.decode() for piece in pieces)[:-1]


@define(frozen=True, slots=False)
class Display:
    """Something displayed, as the JSON text of the answer.

    A parsed object could take 20 times the memory.
    """

    id: str | None
    json: str
    plain_text: str | None
    size: int  # bytes in UTF-8


class ExecutionOutput:
    """Collects the output of one execution.

    A subclass that streams the output overrides `on_text`, `on_display` and `on_clear`.

    Args:
        display_limit_bytes: How much is kept of what is displayed at a time.

    Attributes:
        timed_out: Whether the code was stopped at its time limit.
        command_failed: Whether a notebook command (`!cmd`, `%pip`) of the code failed, which is no error of the code.
        refused_hosts: Hosts that the session's network refused while the code, or such a command, failed.
    """

    def __init__(self, display_limit_bytes: int = _DISPLAY_LIMIT_BYTES) -> None:
        self._streams = {"stdout": StreamBuffer(), "stderr": StreamBuffer()}
        self._display_limit_bytes = display_limit_bytes
        self._displays: list[Display] = []
        self._display_bytes = 0
        self._displays_dropped = self._clear_pending = False
        self._budget = ByteBudget()
        self._began = time.monotonic()
        self._seconds = 0.0
        self._execution_count: int | None = None
        self._error: dict[str, str] | None = None
        self.timed_out = self.command_failed = False
        self.refused_hosts: list[str] = []

    def on_text(self, stream: str, text: str) -> None:
        """React to text at the moment it is written."""

    def on_display(self, display: Display, *, replaces: bool) -> None:
        """React to something displayed, which may replace everything with its id."""

    def on_clear(self) -> None:
        """React to the removal of everything displayed."""

    def start(self, budget: ByteBudget) -> None:
        """Start the clock, and count what is kept against a budget."""
        self._began = time.monotonic()
        self._budget = budget
        self._streams = {name: StreamBuffer(budget) for name in self._streams}

    def begin_with(self, late: ExecutionOutput) -> None:
        """Begin with what came between the execution before and this one."""
        late.release_budget()  # first, because the same bytes are reserved here
        for name, stream in late._streams.items():
            if stream.parts:
                self.add_output(name, "".join(stream.parts).encode())
            self._streams[name].dropped_bytes += stream.dropped_bytes
        for display in late._displays:
            self._show(display, main=False)
        self._displays_dropped |= late._displays_dropped
        self._clear_pending = late._clear_pending

    def release_budget(self) -> None:
        """Give the bytes back to the budget, once the execution has ended."""
        self._budget.release(self._display_bytes + sum(stream.kept_bytes for stream in self._streams.values()))
        self._budget = ByteBudget()

    def add_output(self, stream: str, data: bytes) -> None:
        """Add bytes that were written to a stream."""
        self._clear_if_pending()
        if text := self._streams[stream].feed(data):
            self.on_text(stream, text)

    def add_display(
        self, data: dict[str, Any], *, main: bool, display: str | None = None, update: bool = False
    ) -> None:
        """Add something displayed.

        Args:
            data: Content by MIME type.
            main: Whether it is the value of the code, which has room also when many things were displayed.
            display: The display id, by which it can be updated.
            update: Whether it replaces everything with the same id. What an earlier execution displayed is not here
                any more: its update is added.
        """
        if display is not None and len(display) > _MAX_DISPLAY_ID_CHARS:
            display = None
        self._clear_if_pending()
        if isinstance(data, EncodedData):
            text, size = f'{data.json},"isMainResult":{json.dumps(main)}}}', data.size
        else:
            encoded = json.dumps({**data, "isMainResult": main}, ensure_ascii=False).encode("utf-8", "replace")
            text, size = encoded.decode(), len(encoded)
        plain = data.get("text/plain")
        new = Display(display, text, None if plain is None else str(plain), size)
        self._show(new, main=main, update=update)

    def add_left_out(self, size: int) -> None:
        """Say in the output that something of `size` bytes was too large."""
        text = f"[left out: {size} bytes are more than can be shown]"
        self.add_display({"text/plain": text}, main=False)
        self._displays_dropped = True

    def clear(self, *, wait: bool = False) -> None:
        """Remove everything displayed, at once or when something new comes."""
        self._clear_pending = wait
        if not wait and self._displays:
            self._budget.release(self._display_bytes)
            self._display_bytes = 0
            self._displays.clear()
            self.on_clear()

    def set_error(self, name: str, value: str, traceback: str = "") -> None:
        """Record that the code failed.

        A later error replaces an earlier one, and both tracebacks are kept.
        """
        earlier = self._error["traceback"] if self._error else ""
        self._error = {
            "name": _without_surrogates(name[:_MAX_ERROR_NAME_CHARS]),
            "value": _without_surrogates(_shorten(value)),
            "traceback": _without_surrogates(_shorten(earlier + traceback)),
        }

    def finish(self, count: int | None) -> None:
        """Stop the clock, and complete both streams."""
        self._seconds = time.monotonic() - self._began
        self._execution_count = count
        for name, stream in self._streams.items():
            if text := stream.finish():
                self.on_text(name, text)

    def set_refused_hosts(self, hosts: list[str]) -> None:
        """Record which hosts the network refused.

        The output of code that did not fail itself tells so.
        """
        self.refused_hosts = hosts
        if hosts and not self.failed:
            note = f"{network_hint(hosts)}\n"
            self._streams["stderr"].parts.append(note)
            self.on_text("stderr", note)

    @property
    def failed(self) -> bool:
        """Whether the code failed."""
        return self._error is not None

    @property
    def error(self) -> dict[str, str] | None:
        """The name, value and traceback of the error."""
        return self._error

    @property
    def error_line(self) -> str:
        """The error on one line, or ""."""
        if self._error is None:
            return ""
        return f"{self._error['name']}: {self._error['value']}" if self._error["value"] else self._error["name"]

    @property
    def displays(self) -> tuple[Display, ...]:
        """What is displayed now, in order."""
        return tuple(self._displays)

    @property
    def execution_count(self) -> int | None:
        """The number of executions in this kernel so far."""
        return self._execution_count

    @property
    def duration_seconds(self) -> float:
        """How long the execution took."""
        return self._seconds

    @property
    def truncated(self) -> bool:
        """Whether something is missing."""
        return self._displays_dropped or any(stream.dropped_bytes for stream in self._streams.values())

    def tail(self, size: int) -> tuple[str, str]:
        """Return the last `size` characters of stdout and of stderr so far."""
        return self._streams["stdout"].tail(size), self._streams["stderr"].tail(size)

    def plain_text(self) -> tuple[str, str]:
        """Return stdout with the displayed text, and stderr with the traceback."""
        displayed = [display.plain_text for display in self._displays if display.plain_text is not None]
        stdout = [*_joined(self._streams["stdout"]), *displayed]
        stderr = [*_joined(self._streams["stderr"]), *self._traceback()]
        return "\n".join(text.rstrip("\n") for text in stdout), "\n".join(stderr)

    def to_json(self, trace_id: str) -> str | JsonText:
        """Return the answer, with the traceback in `stderr`."""
        body: dict[str, Any] = {
            "result": [display.json for display in self._displays],
            "stdout": _joined(self._streams["stdout"]),
            "stderr": [*_joined(self._streams["stderr"]), *self._traceback()],
            "executionError": self.error_line,
            "execution_time": round(self._seconds, 6),
            "traceId": trace_id,
        }
        if self._execution_count is not None:
            body["execution_count"] = self._execution_count
        return dump_json(body)

    def structured(self) -> dict[str, Any] | None:
        """Return what the answer's text has no field for."""
        fields: dict[str, Any] = {"truncated": True} if self.truncated else {}
        if self._error is not None:
            fields["error"] = self._error
        if self.refused_hosts:
            fields["refusedHosts"] = self.refused_hosts
        return fields | ({"timedOut": True} if self.timed_out else {}) or None

    def _traceback(self) -> list[str]:
        return [self._error["traceback"]] if self._error and self._error["traceback"] else []

    def _show(self, new: Display, *, main: bool, update: bool = False) -> None:
        replaced = [old for old in self._displays if old.id == new.id] if update and new.id is not None else []
        if self._replace(replaced, new) if replaced else self._append(new, main=main):
            self.on_display(new, replaces=bool(replaced))
        else:
            self._displays_dropped = True

    def _append(self, new: Display, *, main: bool) -> bool:
        # the value comes last, when all else may be used up: twice the limits are enough for one of any size
        share = 2 if main else 1
        if len(self._displays) >= share * _MAX_DISPLAYS or not self._reserve(new.size, share):
            return False
        self._displays.append(new)
        return True

    def _replace(self, replaced: list[Display], new: Display) -> bool:
        if not self._reserve(len(replaced) * new.size - sum(old.size for old in replaced), share=1):
            return False
        self._displays = [new if old.id == new.id else old for old in self._displays]
        return True

    def _reserve(self, size: int, share: int) -> bool:
        if self._display_bytes + size > share * self._display_limit_bytes or not self._budget.try_reserve(size):
            return False
        self._display_bytes += size
        return True

    def _clear_if_pending(self) -> None:
        if self._clear_pending:
            self.clear()


def _joined(stream: StreamBuffer) -> list[str]:
    return ["".join(stream.parts)] if stream.parts else []


def _without_surrogates(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def _shorten(text: str) -> str:
    """Cut the middle out of a long text.

    What matters in an error stands at its beginning or at its end.
    """
    if len(text) <= _MAX_ERROR_CHARS:
        return text
    half = _MAX_ERROR_CHARS // 2
    return f"{text[:half]}\n[cut: {len(text) - 2 * half} characters]\n{text[-half:]}"
