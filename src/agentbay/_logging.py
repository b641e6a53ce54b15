"""Logging setup with the names of the published client.

It configures the logger `agentbay` of the standard library.
"""

from __future__ import annotations

import logging
import re
import sys
from logging.handlers import RotatingFileHandler
from os import PathLike

_FORMAT = "%(asctime)s %(levelname)s %(name)s %(message)s"
_SIZE_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9}
_EXTRA_LEVELS = {"TRACE": logging.DEBUG, "SUCCESS": logging.INFO}  # levels of loguru, which the published client uses
_BACKUP_COUNT = 10  # rotated log files


def get_logger(name: str = "agentbay") -> logging.Logger:
    """Return the logger `agentbay`, or a child of it.

    Args:
        name: Name of the child; "agentbay" is the package's own logger.
    """
    return logging.getLogger(name if name.partition(".")[0] == "agentbay" else f"agentbay.{name}")


class AgentBayLogger:
    """Configures where the package logs to.

    By default, nowhere.

    Log records never contain secrets.
    """

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
            level: Least severe level to log: "DEBUG", "INFO", "WARNING", "ERROR" or "CRITICAL".
            log_file: The file; None logs to no file.
            enable_console: Log to standard error.
            enable_file: Log to `log_file`.
            rotation: Size at which to start a new file, in bytes or such as "10 MB"; None is never.
            retention: Number of rotated files to keep. A period such as "30 days" is not supported, and means ten.
            max_file_size: Alias of `rotation`.
            colorize: Ignored; lines have no colours.
            force_reinit: Whether to replace the setup of an earlier call.

        Raises:
            ValueError: If the level or the size is not valid.
            OSError: If the file cannot be written.
        """
        if cls._handlers and not force_reinit:
            return
        number = _parse_level(level)
        size = _parse_size(rotation if rotation is not None else max_file_size)
        # The new handlers are made first: if the file cannot be opened, the earlier setup stays as it is.
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
        """Set the least severe level to log.

        Raises:
            ValueError: If it is not a level.
        """
        get_logger().setLevel(_parse_level(level))

    @staticmethod
    def get_logger(name: str = "agentbay") -> logging.Logger:
        """Return the package's logger or a child of it, as `agentbay.get_logger` does."""
        return get_logger(name)


def _parse_level(name: str) -> int:
    known = {**logging.getLevelNamesMapping(), **_EXTRA_LEVELS}
    try:
        return known[name.upper()]
    except (KeyError, AttributeError):
        raise ValueError(f"Unknown log level: {name!r}. It must be DEBUG, INFO, WARNING, ERROR or CRITICAL") from None


def _parse_size(text: str | int | None) -> int:
    """Parse a size to bytes.

    None is 0, no limit.
    """
    if text is None:
        return 0
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMG]?B?)\s*", str(text), re.IGNORECASE)
    unit = _SIZE_UNITS.get(match[2].upper()) if match else None
    if match is None or unit is None:
        raise ValueError(
            f"{text!r} is not a size such as '10 MB'; for other rotations, add a handler of the logging module"
        )
    return int(float(match[1]) * unit)
