"""Ready-made settings for the standard library's `agentbay` logger, by the names of the published client."""

from __future__ import annotations

import logging
import re
import sys
from logging.handlers import RotatingFileHandler
from os import PathLike

_FORMAT = "%(asctime)s %(levelname)s %(name)s %(message)s"
_SIZE_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9}
_EXTRA_LEVELS = {"TRACE": logging.DEBUG, "SUCCESS": logging.INFO}  # which the standard library does not have
_BACKUP_COUNT = 10  # log files beside the one that is written to


def get_logger(name: str = "agentbay") -> logging.Logger:
    """Return the package's logger, or one below it, which its settings hold for too.

    Args:
        name: What the messages are about; "agentbay" is the package itself.
    """
    return logging.getLogger(name if name.partition(".")[0] == "agentbay" else f"agentbay.{name}")


class AgentBayLogger:
    """Where the package's log goes. Unless this or the program says otherwise, nowhere; it never holds a secret."""

    _handlers: tuple[logging.Handler, ...] = ()

    @classmethod
    def setup(
        cls,
        level: str = "INFO",
        log_file: str | PathLike[str] | None = None,
        enable_console: bool = True,
        enable_file: bool = True,
        rotation: str | int | None = None,
        retention: str | int = _BACKUP_COUNT,
        max_file_size: str | int | None = None,
        colorize: bool | None = None,
        force_reinit: bool = True,
    ) -> None:
        """Send the log to standard error, to a file, or to both.

        Args:
            level: The least that is logged: "DEBUG", "INFO", "WARNING", "ERROR" or "CRITICAL".
            log_file: The file; without one there is none.
            enable_console: Log to standard error.
            enable_file: Log to `log_file`.
            rotation: Size from which on a new file is begun, in bytes or as "10 MB"; None is never.
            retention: How many full files are kept. A period such as "30 days" cannot be held, and means ten.
            max_file_size: Another name of `rotation`.
            colorize: Not heeded; lines are plain.
            force_reinit: Replace what an earlier call has set up; otherwise that stays.

        Raises:
            ValueError: If the level or the size is not one.
            OSError: If the file cannot be written.
        """
        if cls._handlers and not force_reinit:
            return
        number = _parse_level(level)
        size = _parse_size(rotation if rotation is not None else max_file_size)
        handlers: list[logging.Handler] = []
        if log_file is not None and enable_file:
            kept = retention if isinstance(retention, int) else _BACKUP_COUNT
            handlers.append(RotatingFileHandler(log_file, maxBytes=size, backupCount=kept, encoding="utf-8"))
        if enable_console:
            handlers.append(logging.StreamHandler(sys.stderr))
        logger = get_logger()
        for handler in cls._handlers:
            logger.removeHandler(handler)
            handler.close()
        for handler in handlers:
            handler.setFormatter(logging.Formatter(_FORMAT))
            logger.addHandler(handler)
        cls._handlers = tuple(handlers)
        logger.setLevel(number)

    @classmethod
    def set_level(cls, level: str) -> None:
        """Log nothing below a level.

        Raises:
            ValueError: If it is not one.
        """
        get_logger().setLevel(_parse_level(level))

    @staticmethod
    def get_logger(name: str = "agentbay") -> logging.Logger:
        """Return the package's logger, or one below it; the same as `agentbay.get_logger`."""
        return get_logger(name)


def _parse_level(name: str) -> int:
    known = {**logging.getLevelNamesMapping(), **_EXTRA_LEVELS}
    try:
        return known[name.upper()]
    except (KeyError, AttributeError):
        raise ValueError(f"Unknown log level: {name!r}. It must be DEBUG, INFO, WARNING, ERROR or CRITICAL") from None


def _parse_size(text: str | int | None) -> int:
    """Bytes; 0 is no limit."""
    if text is None:
        return 0
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMG]?B?)\s*", str(text), re.IGNORECASE)
    unit = _SIZE_UNITS.get(match[2].upper()) if match else None
    if match is None or unit is None:
        raise ValueError(f"{text!r} is no size such as '10 MB'; for other rotations, add a handler of logging's own")
    return int(float(match[1]) * unit)
