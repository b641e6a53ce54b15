"""What one piece of code wrote, showed and ended by, within bounds, and the answer that tells it."""

from __future__ import annotations

import codecs
import json
import time
from typing import Any

from agentbay.local.tail import last_pieces

MIB = 1 << 20
STREAM_LIMIT_BYTES = 8 * MIB  # bytes kept of each stream
_DISPLAY_LIMIT_CHARS = 32 * MIB  # characters kept of all that is shown
_MAX_DISPLAYS = 1000


class StreamBuffer:
    """Text of one stream as it comes: bytes that are no UTF-8 are replaced, what is beyond the limit is counted."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._left = STREAM_LIMIT_BYTES
        self.parts: list[str] = []
        self.dropped_bytes = 0

    def feed(self, data: bytes) -> str:
        """Add bytes; return the text that they bring."""
        kept = data[: self._left]
        self._left -= len(kept)
        self.dropped_bytes += len(data) - len(kept)
        return self._add(self._decoder.decode(kept))

    def finish(self) -> str:
        """Return what is left to say: half a character, and how much is missing."""
        text = self._add(self._decoder.decode(b"", final=True))
        if self.dropped_bytes:
            text += self._add(
                f"\n[cut: {self.dropped_bytes} bytes more than the {STREAM_LIMIT_BYTES // MIB} MiB that are kept]\n"
            )
        return text

    def tail(self, size: int) -> str:
        """Return the last `size` characters."""
        return "".join(last_pieces(self.parts, size))[-size:]

    def _add(self, text: str) -> str:
        if text:
            self.parts.append(text)
        return text


class ExecutionOutput:
    """Collects; whoever wants to tell it as it happens overrides `tell`.

    Attributes:
        timed_out: Whether the code was stopped because its time was up.
    """

    def __init__(self) -> None:
        self._streams = {"stdout": StreamBuffer(), "stderr": StreamBuffer()}
        self._displays: list[tuple[str | None, dict[str, Any]]] = []
        self._display_chars_left = _DISPLAY_LIMIT_CHARS
        self._displays_dropped = False
        self._began = time.monotonic()
        self._seconds = 0.0
        self._execution_count: int | None = None
        self._error: dict[str, str] | None = None
        self.timed_out = False

    def on_event(self, event: str, **facts: Any) -> None:
        """Hear of something the moment it happens."""

    def start_clock(self) -> None:
        """Start the clock."""
        self._began = time.monotonic()

    def add_output(self, stream: str, data: bytes) -> None:
        """Add output."""
        if text := self._streams[stream].feed(data):
            self.on_event(stream, chunk=text)

    def add_display(
        self, data: dict[str, Any], *, main: bool, display: str | None = None, update: bool = False
    ) -> None:
        """Add something shown; an update takes the place of what was shown under the same id."""
        size = len(json.dumps(data))
        if size > self._display_chars_left or len(self._displays) >= _MAX_DISPLAYS:
            self._displays_dropped = True
            return
        self._display_chars_left -= size
        item = {**data, "isMainResult": main}
        if update and display is not None:
            self._displays = [(known, item if known == display else old) for known, old in self._displays]
        else:
            self._displays.append((display, item))
        self.on_event("result", result=item)

    def clear(self) -> None:
        """Forget what was shown."""
        self._displays.clear()

    def set_error(self, name: str, value: str, traceback: str = "") -> None:
        """Say how the code ended; a later word counts more."""
        earlier = self._error["traceback"] if self._error else ""
        self._error = {"name": name, "value": value, "traceback": earlier + traceback}

    def finish(self, count: int | None) -> None:
        """Stop the clock and say the last."""
        self._seconds = time.monotonic() - self._began
        self._execution_count = count
        for name, stream in self._streams.items():
            if text := stream.finish():
                self.on_event(name, chunk=text)

    @property
    def failed(self) -> bool:
        """Whether the code ended by an error."""
        return self._error is not None

    @property
    def error(self) -> dict[str, str] | None:
        """Name, value and traceback of the error."""
        return self._error

    @property
    def error_line(self) -> str:
        """The error on one line, or ""."""
        if self._error is None:
            return ""
        return f"{self._error['name']}: {self._error['value']}" if self._error["value"] else self._error["name"]

    @property
    def execution_count(self) -> int | None:
        """How many pieces of code the kernel has run."""
        return self._execution_count

    @property
    def duration_seconds(self) -> float:
        """How long it took."""
        return self._seconds

    @property
    def truncated(self) -> bool:
        """Whether something is missing."""
        return self._displays_dropped or any(stream.dropped_bytes for stream in self._streams.values())

    def tail(self, size: int) -> tuple[str, str]:
        """Return the last `size` characters of what it has written so far to stdout and to stderr."""
        return self._streams["stdout"].tail(size), self._streams["stderr"].tail(size)

    def plain_text(self) -> tuple[str, str]:
        """Return what it wrote to stdout, with the plain text of what it showed, and to stderr, with the traceback."""
        shown = [str(item["text/plain"]) for _, item in self._displays if "text/plain" in item]
        stdout, stderr = (
            [*_joined(self._streams["stdout"]), *shown],
            [*_joined(self._streams["stderr"]), *self._trace()],
        )
        return "\n".join(text.rstrip("\n") for text in stdout), "\n".join(stderr)

    def to_json(self, trace_id: str) -> str:
        """Write the answer; the traceback stands in `stderr`."""
        body: dict[str, Any] = {
            "result": [json.dumps(item, ensure_ascii=False) for _, item in self._displays],
            "stdout": _joined(self._streams["stdout"]),
            "stderr": [*_joined(self._streams["stderr"]), *self._trace()],
            "executionError": self.error_line,
            "execution_time": round(self._seconds, 6),
            "traceId": trace_id,
        }
        if self._execution_count is not None:
            body["execution_count"] = self._execution_count
        return json.dumps(body, ensure_ascii=False).encode("utf-8", "replace").decode()

    def _trace(self) -> list[str]:
        return [self._error["traceback"]] if self._error and self._error["traceback"] else []

    def structured(self) -> dict[str, Any] | None:
        """Say what the text has no field for."""
        facts: dict[str, Any] = {"truncated": True} if self.truncated else {}
        if self._error is not None:
            facts["error"] = {name: text.encode("utf-8", "replace").decode() for name, text in self._error.items()}
        return facts | ({"timedOut": True} if self.timed_out else {}) or None


def _joined(stream: StreamBuffer) -> list[str]:
    return ["".join(stream.parts)] if stream.parts else []
