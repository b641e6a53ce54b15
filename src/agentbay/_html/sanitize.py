"""Sanitises output of sessions for notebooks.

Code in a session is untrusted, and scripts in a notebook run with the rights of its user. So nothing from a session may
act in the notebook: only inert MIME types are passed on, plain HTML is rebuilt from allowlists of tags and attributes,
and every other document is put into a sandboxed iframe. An iframe without `allow-same-origin` has an origin of its own:
scripts in it reach neither the notebook nor anything that only its user may read.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from html import escape
from html.parser import HTMLParser
from typing import Any

from . import image, text

_SAFE_MIME_TYPES = re.compile(r"text/plain|image/(png|jpeg|gif)|application/json")
_ALLOWED_TAGS = frozenset(
    """a abbr b blockquote br caption code col colgroup dd del div dl dt em h1 h2 h3 h4 h5 h6 hr i img ins kbd li mark
    ol p pre q s samp small span strong sub sup table tbody td tfoot th thead tr tt u ul var""".split()  # noqa: SIM905
)
_VOID_TAGS = frozenset({"br", "col", "hr", "img"})
_ALLOWED_ATTRIBUTES = {
    **dict.fromkeys(("align", "border", "colspan", "rowspan", "scope", "valign"), "[\\w-]{0,10}"),
    **dict.fromkeys(("height", "width"), "\\d{1,4}(px|%)?"),
    **dict.fromkeys(("alt", "title"), ".*"),
    "class": "dataframe",  # of pandas; classes of the notebook itself could place an element over its page
    "href": "https?://.*",
    "src": "data:image/(png|jpeg|gif);base64,.*",
}
# Values without negative numbers and with small ones only, so that nothing covers what is beside it.
_STYLE_VALUE = r"(#[0-9a-f]{3,8}|[a-z][a-z-]*|\d{1,3}(\.\d{1,3})?(px|pt|%)?|\d(\.\d{1,3})?r?em)"
_ALLOWED_STYLE = re.compile(
    r"\s*((background-color|border|color|font-\w+|margin|padding|text-(align|decoration)|width)\s*:\s*"
    rf"{_STYLE_VALUE}([\s,]+{_STYLE_VALUE})*\s*)?",
    re.IGNORECASE,
)
# TeX commands that set links, CSS or HTML attributes, or that define or load others. Notebooks typeset TeX in any text.
_ACTIVE_TEX = re.compile(
    r"\\\s*(href|url|style|class|cssId|html|bbox|mmlToken|unicode|require|includegraphics|def|[egx]def|let|csname"
    r"|(re)?new(command|environment)|DeclareMath)",
    re.IGNORECASE,
)
_ACTIVE_MARKDOWN = re.compile(r"<|&#?\w+;|!\[|javascript\s*:", re.IGNORECASE)  # HTML, character references, images
_MARKDOWN_LINK = re.compile(r"\]\(\s*([^)\s]*)|^\s*\[[^\]]*\]:\s*(\S*)", re.MULTILINE)
_SAFE_LINK = re.compile(r"(https?://|#)[^\\]*", re.IGNORECASE)

_IFRAME_STYLE = "width:100%;height:18em;border:1px solid #8888;background:#fff;resize:vertical;overflow:auto"
_CHART_TYPE = re.compile(r"application/vnd\.(vega|vegalite|plotly)\.v(\d+)(?:\.\d+)*[+.]json")
_CHART_LIBRARIES = "https://cdn.jsdelivr.net"
# The frame of a chart loads its libraries and nothing else: data by URL is refused, and nothing can be sent away.
_CHART_DOCUMENT = """\
<!DOCTYPE html><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="default-src 'none'; \
script-src {host} 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; img-src data: blob:; font-src data:">
<div id="chart">The chart libraries could not be loaded from {host}.</div>
{scripts}<script>const element = document.getElementById("chart"), spec = {spec};
if (window.{library}) {{ element.textContent = ""; {show} }}</script>"""
_SHOW_VEGA = 'vegaEmbed(element, spec, {{actions: false, mode: "{mode}"}});'
_SHOW_PLOTLY = "Plotly.newPlot(element, spec.data, spec.layout, {responsive: true});"


def sanitize_bundle(forms: Mapping[str, Any]) -> dict[str, Any]:
    """Return the MIME types that a notebook may show, with safe content."""
    kept = {mime: value for mime, value in forms.items() if _SAFE_MIME_TYPES.fullmatch(mime)}
    for mime, is_inert in (("text/markdown", _is_inert_markdown), ("text/latex", _is_inert_tex)):
        source = forms.get(mime)
        if isinstance(source, str):
            kept.update({mime: source} if is_inert(source) else {"text/plain": kept.get("text/plain", source)})
    if isinstance(forms.get("text/html"), str):
        kept["text/html"] = sanitize_html(forms["text/html"])
    elif isinstance(forms.get("image/svg+xml"), str):
        kept["text/html"] = _svg_image(forms["image/svg+xml"])
    elif not any(mime.startswith("image/") for mime in kept) and (chart := _chart_document(forms)):
        kept["text/html"] = _iframe(chart)
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
        return f'<div class="tex2jax_process mathjax_process">{escape(safe["text/latex"])}</div>'
    return text(str(forms.get("text/markdown", forms.get("text/plain", forms.get("text/latex", "")))))


def sanitize_html(html: str) -> str:
    """Rebuild plain HTML from allowlists, or put it into a sandboxed iframe."""
    reader = _Sanitizer()
    reader.feed(html)
    reader.close()
    return reader.html() if reader.is_allowed and _is_inert_tex(reader.text()) else _iframe(html)


def _iframe(document: str) -> str:
    return f'<iframe sandbox="allow-scripts" srcdoc="{escape(document)}" style="{_IFRAME_STYLE}"></iframe>'


def _svg_image(svg: str) -> str:
    return image("image/svg+xml", base64.b64encode(svg.encode(errors="replace")).decode())


def _is_inert_tex(source: str) -> bool:
    return _ACTIVE_TEX.search(source) is None


def _is_inert_markdown(source: str) -> bool:
    """Return whether Markdown has no HTML, no images, and only links to web pages."""
    targets = [inline or reference for inline, reference in _MARKDOWN_LINK.findall(source)]
    return (
        _ACTIVE_MARKDOWN.search(source) is None
        and _is_inert_tex(source)
        and all(not target or _SAFE_LINK.fullmatch(target) for target in targets)
    )


def _chart_document(forms: Mapping[str, Any]) -> str:
    """Return HTML that draws a Vega or Plotly chart, or "".

    The notebook's own renderers would load what a chart names by URL with the rights of the user.
    """
    for mime, spec in forms.items():
        if (found := _CHART_TYPE.fullmatch(mime)) and isinstance(spec, Mapping):
            kind, version = found[1], int(found[2])
            encoded = json.dumps(spec).replace("<", "\\u003c")  # so that no text ends the script element
            if kind == "plotly":
                libraries, library, show = ["plotly.js-dist-min@3"], "Plotly", _SHOW_PLOTLY
            else:
                mode = kind.replace("vegalite", "vega-lite")
                vega = version if kind == "vega" else 6 if version > 5 else 5
                lite = [f"vega-lite@{version}"] if kind == "vegalite" else []
                libraries, library = [f"vega@{vega}", *lite, f"vega-embed@{7 if vega > 5 else 6}"], "vegaEmbed"
                show = _SHOW_VEGA.format(mode=mode)
            scripts = "".join(f'<script src="{_CHART_LIBRARIES}/npm/{name}"></script>\n' for name in libraries)
            return _CHART_DOCUMENT.format(
                host=_CHART_LIBRARIES, scripts=scripts, spec=encoded, library=library, show=show
            )
    return ""


class _Sanitizer(HTMLParser):
    """Rebuilds HTML from allowed tags and attributes, and copies no markup.

    Classes and the scoped style that pandas adds to tables are dropped.

    Attributes:
        is_allowed: Whether everything else was allowed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.is_allowed = True
        self._out: list[str] = []
        self._open: list[str] = []
        self._text: list[str] = []
        self._skipping = False

    def text(self) -> str:
        return "".join(self._text)

    def html(self) -> str:
        return "".join(self._out) + "".join(f"</{tag}>" for tag in reversed(self._open))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "style" and ("scoped", None) in attrs:
            self._skipping = True
            return
        attrs = [(name, value) for name, value in attrs if name != "class" or value == "dataframe"]
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
        # An end tag without its start could close an element of the notebook itself. Elements that are still open
        # inside are closed too, so that the output is always balanced.
        elif tag in self._open:
            while (last := self._open.pop()) != tag:
                self._out.append(f"</{last}>")
            self._out.append(f"</{tag}>")

    def handle_data(self, data: str) -> None:
        if not self._skipping:
            self._out.append(escape(data))
            self._text.append(data)


def _is_allowed(name: str, value: str) -> bool:
    if name == "style":
        return all(_ALLOWED_STYLE.fullmatch(part) for part in value.split(";"))
    return (
        name in _ALLOWED_ATTRIBUTES
        and re.fullmatch(_ALLOWED_ATTRIBUTES[name], value, re.IGNORECASE | re.DOTALL) is not None
    )
