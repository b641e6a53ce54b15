"""Errors of the browser."""

from __future__ import annotations


class DevToolsError(Exception):
    """The browser refused a command, or does not answer."""


class DevToolsTimeout(DevToolsError):
    """The browser did not answer in time."""
