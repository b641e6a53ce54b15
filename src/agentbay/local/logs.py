"""The runtime's log on standard error, as lines of text or JSON.

It names sessions, actions and failures, never what is sent: no key, token, command, path or file content.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import threading
import time
from collections import deque
from datetime import UTC, datetime
from typing import Any

_MAX_WAITING_LINES = 10_000
_FLUSH_SECONDS = 1.0  # for the last lines, at the end of the process
_FULL_SECONDS = 0.05  # between two looks at a standard error that does not block
_TEXT = "%(levelname)s %(name)s: %(message)s"
# C0, DEL, C1, and the line separators that some viewers break lines at.
_CONTROL_CHARACTERS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def _escape(text: str) -> str:
    # Messages can hold names from sessions: these must not forge lines, nor send escape sequences to a terminal.
    return _CONTROL_CHARACTERS.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text)


class TextFormatter(logging.Formatter):
    """Formats a record as one line, with its traceback indented below."""

    def __init__(self) -> None:
        super().__init__(_TEXT)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (the name is logging's)
        return _escape(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802 (the name is logging's)
        return "\n".join("    " + _escape(line) for line in super().formatException(ei).split("\n"))


class JsonFormatter(logging.Formatter):
    """Formats a record as a line of JSON: time (UTC), level, logger, message, exception."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _escape(record.getMessage()),
        }
        if record.exc_info:
            lines = self.formatException(record.exc_info).split("\n")
            line["exception"] = "\n".join(_escape(part) for part in lines)
        return json.dumps(line, ensure_ascii=False)


class StandardErrorHandler(logging.Handler):
    """Writes to standard error in a thread, so that nothing waits for its reader.

    A pipe that nobody reads is full after some hundred lines. Beyond `_MAX_WAITING_LINES` more, lines are dropped, and
    their number is logged when there is room again.
    """

    def __init__(self) -> None:
        super().__init__()
        self._fd = sys.stderr.fileno() if sys.stderr else -1
        self._lines: deque[str] = deque()
        self._changed = threading.Condition()
        self._dropped = 0
        self._thread: threading.Thread | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Have a record written."""
        line = self.format(record)
        with self._changed:
            if self._thread is None:
                self._thread = threading.Thread(target=self._write_lines, name="agentbay-log", daemon=True)
                self._thread.start()
            if len(self._lines) < _MAX_WAITING_LINES:
                self._lines.append(line)
                self._changed.notify_all()
            else:
                self._dropped += 1

    def flush(self) -> None:
        """Wait until all lines are written, or for a moment if they cannot be."""
        with self._changed:
            self._changed.wait_for(lambda: not self._lines, _FLUSH_SECONDS)

    def _write_lines(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._lines)
                line = self._lines[0]
            _write_line(self._fd, line)
            with self._changed:
                self._lines.popleft()
                if self._dropped and not self._lines:
                    self._lines.append(self.format(_dropped_record(self._dropped)))
                    self._dropped = 0
                self._changed.notify_all()


def _dropped_record(count: int) -> logging.LogRecord:
    text = "%d lines were dropped here, since nobody read standard error"
    return logging.LogRecord(__name__, logging.WARNING, __file__, 0, text, (count,), None)


def _write_line(fd: int, line: str) -> None:
    # Past sys.stderr, whose lock would be held while this waits, also when the process ends.
    data = f"{line}\n".encode("utf-8", "backslashreplace")
    while data:
        try:
            data = data[os.write(fd, data) :]
        except BlockingIOError:  # whoever started this process has set it so
            time.sleep(_FULL_SECONDS)
        except OSError:  # nobody can read it any more
            return


def configure_logging(level: str, style: str) -> None:
    """Send the log of this process to standard error."""
    handler = StandardErrorHandler()
    handler.setFormatter(JsonFormatter() if style == "json" else TextFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler])
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
