"""Screenshots of Playwright pages whose lazy images have loaded."""

from __future__ import annotations

from typing import Any

_LOAD_TIMEOUT_MS = 30_000
_SCROLL_STEPS, _SCROLL_PIXELS, _SCROLL_PAUSE_MS = 8, 1200, 200
_SETTLE_MS = 1500
_VIEWPORT_WIDTH, _MAX_VIEWPORT_HEIGHT = 1920, 10_000  # pixels
_HEIGHT = "() => document.documentElement.scrollHeight"
_LOAD_LAZY_IMAGES = """() => {
  document.querySelectorAll('img[data-src]').forEach((image) => { image.src = image.dataset.src; });
  document.querySelectorAll('[data-bg]').forEach((item) => { item.style.backgroundImage = `url(${item.dataset.bg})`; });
}"""
_DEFAULTS = {"animations": "disabled", "caret": "hide", "scale": "css", "timeout": 60_000, "type": "png"}


async def take_full_screenshot(page: Any, full_page: bool, options: dict[str, Any]) -> bytes:
    """Scroll through a page until its height is stable, and take a screenshot.

    Raises:
        RuntimeError: It failed; the cause is Playwright's error.
    """
    try:
        await page.evaluate("() => window.scrollTo(0, document.body.scrollHeight)")
        await page.wait_for_load_state("domcontentloaded", timeout=_LOAD_TIMEOUT_MS)
        height = await _scroll_through(page)
        await page.evaluate(_LOAD_LAZY_IMAGES)
        await page.wait_for_timeout(_SETTLE_MS)
        await page.set_viewport_size({"width": _VIEWPORT_WIDTH, "height": min(height, _MAX_VIEWPORT_HEIGHT)})
        taken: bytes = await page.screenshot(**{**_DEFAULTS, "full_page": full_page, **options})
    except Exception as error:  # whatever Playwright raises: this package does not depend on it
        raise RuntimeError(f"Failed to capture screenshot: {error}") from error
    return taken


async def _scroll_through(page: Any) -> int:
    height = 0
    for _ in range(_SCROLL_STEPS):
        await page.evaluate(f"() => window.scrollBy(0, {_SCROLL_PIXELS})")
        await page.wait_for_timeout(_SCROLL_PAUSE_MS)
        found = int(await page.evaluate(_HEIGHT))
        if found == height:
            break
        height = found
    return height
