"""Pages of lists, and the tokens that say where the next page begins.

A token names the last entry shown, so that deletions between two pages neither skip nor repeat an entry.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence

from agentbay._lazy_attrs import define
from agentbay.errors import InvalidRequestError
from agentbay.local.api_errors import invalid_request

DEFAULT_PAGE_SIZE = 10  # entries
_MAX_PAGE_SIZE = 100  # entries


@define(frozen=True, slots=False)
class ListPage:
    """A part of a list.

    Attributes:
        next_token: Where the next page begins; "" if this is the last one.
        max_results: The page size that was asked for.
        total_count: The number of entries on all pages.
        total_field: The wire name of `total_count`.
    """

    items: Sequence[object]
    next_token: str
    max_results: int
    total_count: int
    total_field: str = "TotalCount"


def check_page_size(size: int) -> int:
    """Return the page size, or raise InvalidRequestError if it is out of range."""
    if not 1 <= size <= _MAX_PAGE_SIZE:
        raise invalid_request(f"MaxResults: must be 1 to {_MAX_PAGE_SIZE}, not {size}.")
    return size


def write_page_token(after: str) -> str:
    """Make the token of the page that begins behind the entry named `after`."""
    return base64.urlsafe_b64encode(b"after:" + after.encode("utf-8", "surrogateescape")).decode()


def read_page_token(token: str | None) -> str:
    """Return the name before a page's first entry, "" for the first page.

    Raises:
        InvalidRequestError: The token is not one of this runtime.
    """
    if not token:
        return ""
    try:
        text = base64.urlsafe_b64decode(token).decode("utf-8", "surrogateescape")
    except (binascii.Error, ValueError):
        raise _invalid_page_token() from None
    if not text.startswith("after:"):
        raise _invalid_page_token()
    return text.removeprefix("after:")


def read_numeric_page_token(token: str | None) -> int:
    """Return the number before a page's first entry, 0 for the first page.

    Raises:
        InvalidRequestError: The token is not one of this runtime.
    """
    try:
        return int(read_page_token(token) or 0)
    except ValueError:
        raise _invalid_page_token() from None


def _invalid_page_token() -> InvalidRequestError:
    return invalid_request("NextToken: is not one that this runtime has given.")
