"""Take the fingerprint of a browser on this machine, with Playwright."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from .._concurrency import async_run_blocking
from .._local_headers import HeaderServer
from ..models.fingerprint import FingerprintFormat

_HEADERS = (
    "sec-ch-ua",
    "sec-ch-ua-mobile",
    "sec-ch-ua-platform",
    "upgrade-insecure-requests",
    "user-agent",
    "accept",
    "sec-fetch-site",
    "sec-fetch-mode",
    "sec-fetch-user",
    "sec-fetch-dest",
    "accept-encoding",
    "accept-language",
)
_COLLECT = """async () => {
  const video = {
    ogg: 'video/ogg; codecs="theora"', h264: 'video/mp4; codecs="avc1.42E01E"',
    webm: 'video/webm; codecs="vp8, vorbis"',
  };
  const audio = {
    ogg: 'audio/ogg; codecs="vorbis"', mp3: 'audio/mpeg', wav: 'audio/wav; codecs="1"', m4a: 'audio/x-m4a',
    aac: 'audio/aac',
  };
  const playable = (tag, kinds) => Object.fromEntries(
    Object.entries(kinds).map(([name, kind]) => [name, document.createElement(tag).canPlayType(kind)]));
  const webgl = document.createElement('canvas').getContext('webgl');
  const info = webgl && webgl.getExtension('WEBGL_debug_renderer_info');
  const agent = navigator.userAgentData;
  const high = agent && await agent.getHighEntropyValues(
    ['architecture', 'bitness', 'fullVersionList', 'model', 'platformVersion', 'uaFullVersion']);
  const devices = navigator.mediaDevices ? await navigator.mediaDevices.enumerateDevices() : [];
  return {
    screen: {
      availHeight: screen.availHeight, availWidth: screen.availWidth, availTop: screen.availTop,
      availLeft: screen.availLeft, colorDepth: screen.colorDepth, height: screen.height, pixelDepth: screen.pixelDepth,
      width: screen.width, devicePixelRatio: window.devicePixelRatio, pageXOffset: window.pageXOffset,
      pageYOffset: window.pageYOffset, innerHeight: window.innerHeight, outerHeight: window.outerHeight,
      outerWidth: window.outerWidth, innerWidth: window.innerWidth, screenX: window.screenX,
      clientWidth: document.documentElement.clientWidth, clientHeight: document.documentElement.clientHeight,
      hasHDR: matchMedia('(dynamic-range: high)').matches,
    },
    navigator: {
      userAgent: navigator.userAgent, userAgentData: agent ? {...agent.toJSON(), ...high} : {},
      doNotTrack: navigator.doNotTrack || '', appCodeName: navigator.appCodeName, appName: navigator.appName,
      appVersion: navigator.appVersion, oscpu: navigator.oscpu || '', webdriver: String(navigator.webdriver),
      language: navigator.language, languages: [...navigator.languages], platform: navigator.platform,
      deviceMemory: navigator.deviceMemory || null, hardwareConcurrency: navigator.hardwareConcurrency,
      product: navigator.product, productSub: navigator.productSub, vendor: navigator.vendor,
      vendorSub: navigator.vendorSub, maxTouchPoints: navigator.maxTouchPoints,
      extraProperties: {
        vendorFlavors: ['chrome', 'safari', 'opera'].filter((name) => name in window),
        isBluetoothSupported: 'bluetooth' in navigator, globalPrivacyControl: navigator.globalPrivacyControl ?? null,
        pdfViewerEnabled: navigator.pdfViewerEnabled, installedApps: [],
      },
    },
    videoCodecs: playable('video', video), audioCodecs: playable('audio', audio),
    pluginsData: Object.fromEntries([...navigator.plugins].map((plugin) => [plugin.name, plugin.filename])),
    battery: null,
    videoCard: info ? {
      renderer: webgl.getParameter(info.UNMASKED_RENDERER_WEBGL),
      vendor: webgl.getParameter(info.UNMASKED_VENDOR_WEBGL),
    } : {},
    multimediaDevices: devices.map((device) => device.kind), fonts: [], mockWebRTC: false, slim: null,
  };
}"""
_logger = logging.getLogger("agentbay")


class AsyncBrowserFingerprintGenerator:
    """Take the fingerprint of a browser on this machine.

    It needs the package `playwright`.

    Args:
        headless: Run the browser without a window.
        use_chrome_channel: Run the installed Google Chrome instead of Playwright's own Chromium.
        executable_path: Run this browser instead. Keyword only.
    """

    def __init__(
        self, headless: bool = False, use_chrome_channel: bool = True, *, executable_path: str | None = None
    ) -> None:
        self.headless = headless
        self.use_chrome_channel = use_chrome_channel
        self._executable_path = executable_path

    async def generate_fingerprint(self) -> FingerprintFormat | None:
        """Take the fingerprint.

        Returns:
            None if it cannot be taken; why is logged as a warning.
        """
        try:
            return await self._take()
        except Exception as error:  # noqa: BLE001 - whatever Playwright raises: this package does not depend on it
            _logger.warning("The fingerprint cannot be taken: %s", error)
            return None

    async def generate_fingerprint_to_file(self, output_filename: str = "fingerprint_output.json") -> bool:
        """Take the fingerprint and write it to a file as JSON.

        Returns:
            False if that fails; why is logged as a warning.
        """
        found = await self.generate_fingerprint()
        if found is None:
            return False
        try:
            await async_run_blocking(Path(output_filename).write_text, found.to_json(), "utf-8")
        except OSError as error:
            _logger.warning("The fingerprint cannot be written: %s", error)
            return False
        return True

    async def _take(self) -> FingerprintFormat:
        from playwright.async_api import async_playwright

        options: dict[str, Any] = {"headless": self.headless}
        if self._executable_path is not None:
            options["executable_path"] = self._executable_path
        elif self.use_chrome_channel:
            options["channel"] = "chrome"
        # A script in the page cannot read the headers that its own browser sends, so a local server records them.
        with HeaderServer() as server:
            async with async_playwright() as playwright:
                browser = await playwright.chromium.launch(**options)
                try:
                    page = await browser.new_page()
                    await page.goto(server.url)
                    facts = await page.evaluate(_COLLECT)
                finally:
                    await browser.close()
        headers = {name: server.headers[name] for name in _HEADERS if name in server.headers}
        return FingerprintFormat.load({"fingerprint": facts, "headers": headers})
