"""The elements of a phone's screen, as Android's uiautomator writes them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from agentbay.local.phone.adb import Phone, PhoneCommandFailed, PhoneFailed

if TYPE_CHECKING:
    import xml.etree.ElementTree as ElementTree

_DUMP_PATH = "/data/local/tmp/agentbay-elements.xml"
_NO_DUMP = 75  # EX_TEMPFAIL of sysexits.h, which adb itself never ends with
_DUMP = (
    f"uiautomator dump {_DUMP_PATH} >/dev/null && cat {_DUMP_PATH}; e=$?; rm -f {_DUMP_PATH}; "
    f"[ $e = 0 ] || exit {_NO_DUMP}"
)
_MAX_DEPTH = 200
_RETRY_SECONDS = 0.2


async def dump_elements(phone: Phone, timeout: float) -> str:
    """Return the elements as XML.

    While something moves on the screen there is nothing to list, so it is tried again for `timeout` seconds.

    Raises:
        PhoneFailed: The screen did not come to rest, or the phone does not answer.
    """
    loop = asyncio.get_running_loop()
    end = loop.time() + timeout
    while True:
        try:
            return (await phone.run(_DUMP)).decode("utf-8", "replace")
        except PhoneCommandFailed as error:
            if error.exit_code != _NO_DUMP or loop.time() >= end:
                raise
            await asyncio.sleep(_RETRY_SECONDS)


def parse_elements(text: str) -> list[dict[str, Any]]:
    """Return the elements as a tree.

    Raises:
        PhoneFailed: The text is no such XML.
    """
    import xml.etree.ElementTree as ElementTree  # expat refuses entities that grow

    try:
        root = ElementTree.fromstring(text[text.find("<") :].strip())
    except ElementTree.ParseError as error:
        raise PhoneFailed(f"The phone lists its elements in a form that cannot be read: {error}") from error
    return [_describe(node, 0) for node in root]


def clickable_elements(elements: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return those elements of a tree that can be clicked, without their children."""
    found: list[dict[str, Any]] = []
    for element in elements:
        if element["clickable"]:
            found.append(element | {"children": [], "isParent": False})
        found += clickable_elements(element["children"])
    return found


def _describe(node: ElementTree.Element, depth: int) -> dict[str, Any]:
    children = [_describe(child, depth + 1) for child in node] if depth < _MAX_DEPTH else []
    index = node.get("index", "")
    return {
        "bounds": node.get("bounds", ""),
        "className": node.get("class", ""),
        "text": node.get("text", ""),
        "type": "clickable" if node.get("clickable") == "true" else "",
        "resourceId": node.get("resource-id", ""),
        "contentDesc": node.get("content-desc", ""),
        "package": node.get("package", ""),
        "clickable": node.get("clickable") == "true",
        "index": int(index) if index.isdecimal() else -1,
        "isParent": bool(children),
        "children": children,
    }
