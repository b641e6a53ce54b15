"""Sanitises output of sessions for notebooks.

Code in a session is untrusted, and scripts in a notebook run with the rights of its user. So nothing from a session may
act in the notebook: only inert MIME types are passed on, plain HTML is rebuilt from allowlists of tags and attributes,
and every other document is put into a sandboxed iframe.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from html import escape
from html.parser import HTMLParser
from typing import Any

from . import image, text

_SAFE_MIME_TYPES = re.compile(
    r"text/(plain|latex)|image/(png|jpeg|gif)|application/(geo\+)?json|application/vnd\.(vega|plotly).*"
)
_ALLOWED_TAGS = frozenset(
    """a abbr b blockquote br caption code col colgroup dd del div dl dt em h1 h2 h3 h4 h5 h6 hr i img ins kbd li mark
    ol p pre q s samp small span strong sub sup table tbody td tfoot th thead tr tt u ul var""".split()  # noqa: SIM905
)
_VOID_TAGS = frozenset({"br", "col", "hr", "img"})
_ALLOWED_ATTRIBUTES = {
    **dict.fromkeys(("align", "border", "class", "colspan", "height", "rowspan", "scope", "valign", "width"), ".*"),
    **dict.fromkeys(("alt", "title"), ".*"),
    "href": "https?://.*",
    "src": "data:image/(png|jpeg|gif);base64,.*",
}
_ALLOWED_STYLE = re.compile(
    r"\s*((background-color|border|color|font-\w+|margin|padding|text-\w+|width)\s*:[\w\s#%.,-]*)?"
)
_IFRAME_STYLE = "width:100%;height:18em;border:1px solid #8888;background:#fff;resize:vertical;overflow:auto"


def sanitize_bundle(forms: Mapping[str, Any]) -> dict[str, Any]:
    """Return the MIME types that a notebook may show, with safe content."""
    kept = {mime: value for mime, value in forms.items() if _SAFE_MIME_TYPES.fullmatch(mime)}
    markdown = forms.get("text/markdown")
    if isinstance(markdown, str) and not re.search(r"<|javascript:", markdown, re.IGNORECASE):
        kept["text/markdown"] = markdown
    if isinstance(forms.get("text/html"), str):
        kept["text/html"] = sanitize_html(forms["text/html"])
    elif isinstance(forms.get("image/svg+xml"), str):
        kept["text/html"] = _svg_image(forms["image/svg+xml"])
    return kept


def bundle_to_html(forms: Mapping[str, Any]) -> str:
    """Return HTML for the best MIME type."""
    safe = sanitize_bundle(forms)
    if "text/html" in safe:
        return str(safe["text/html"])
    for kind in ("image/png", "image/jpeg", "image/gif"):
        if isinstance(safe.get(kind), str):
            return image(kind, safe[kind])
    if isinstance(safe.get("text/latex"), str):
        return f"<div>{escape(safe['text/latex'])}</div>"  # notebooks typeset LaTeX in any text
    return text(str(forms.get("text/markdown", forms.get("text/plain", ""))))


def sanitize_html(html: str) -> str:
    """Rebuild plain HTML from allowlists, or put it into a sandboxed iframe."""
    reader = _Sanitizer()
    reader.feed(html)
    reader.close()
    if reader.is_allowed:
        return reader.html()
    return f'<iframe sandbox="allow-scripts" srcdoc="{escape(html)}" style="{_IFRAME_STYLE}"></iframe>'


def _svg_image(svg: str) -> str:
    return image("image/svg+xml", base64.b64encode(svg.encode(errors="replace")).decode())


class _Sanitizer(HTMLParser):
    """Rebuilds HTML from allowed tags and attributes, and copies no markup.

    Attributes:
        is_allowed: Whether everything was allowed. The scoped style that pandas adds to tables is dropped.
    """

    def __init__(self) -> None:
        super().__init__()
        self.is_allowed = True
        self._out: list[str] = []
        self._open: list[str] = []
        self._skipping = False

    def html(self) -> str:
        return "".join(self._out) + "".join(f"</{tag}>" for tag in reversed(self._open))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "style" and ("scoped", None) in attrs:
            self._skipping = True
            return
        known = [(name, value or "") for name, value in attrs if _is_allowed(name, value or "")]
        if tag not in _ALLOWED_TAGS or len(known) < len(attrs):
            self.is_allowed = False
            return
        written = [f'{name}="{escape(value)}"' for name, value in known]
        self._out.append(f"<{' '.join([tag, *written])}>")
        if tag not in _VOID_TAGS:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag == "style":
            self._skipping = False
        elif tag in self._open:
            while (last := self._open.pop()) != tag:
                self._out.append(f"</{last}>")
            self._out.append(f"</{tag}>")

    def handle_data(self, data: str) -> None:
        if not self._skipping:
            self._out.append(escape(data))


def _is_allowed(name: str, value: str) -> bool:
    if name == "style":
        return all(_ALLOWED_STYLE.fullmatch(part) for part in value.split(";"))
    return (
        name in _ALLOWED_ATTRIBUTES
        and re.fullmatch(_ALLOWED_ATTRIBUTES[name], value, re.IGNORECASE | re.DOTALL) is not None
    )
