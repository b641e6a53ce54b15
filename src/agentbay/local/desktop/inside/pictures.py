"""Screenshots."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

from Xlib import X

from agentbay.local.desktop.inside.refusal import Refused

_JPEG_QUALITY = 85  # percent
_PNG_COMPRESSION = 1  # the fastest: a screenshot is looked at and thrown away
_ROWS = 100  # in one answer of the X server; Xlib copies large ones over and over
_ALL_PLANES = 0xFFFFFFFF


def take_screenshot(display: Any, image_format: str) -> bytes:
    """Return width and height of the screen, as 32-bit numbers, and the image."""
    from PIL import Image

    if image_format not in ("png", "jpeg"):
        raise Refused(f"format must be png or jpeg, not {image_format!r:.80}")
    geometry = display.screen().root.get_geometry()
    width, height = geometry.width, geometry.height
    image = Image.frombuffer("RGB", (width, height), _grab(display, width, height), "raw", "BGRX", 0, 1)
    if image_format == "png":
        content = _write_png(width, height, image.tobytes())
    else:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=_JPEG_QUALITY)
        content = file.getvalue()
    return struct.pack("<II", width, height) + content


def _grab(display: Any, width: int, height: int) -> bytes:
    root = display.screen().root
    display.grab_server()  # so that no program draws between two parts
    try:
        parts = [
            root.get_image(0, top, width, min(_ROWS, height - top), X.ZPixmap, _ALL_PLANES).data
            for top in range(0, height, _ROWS)
        ]
    finally:
        display.ungrab_server()
        display.flush()
    return b"".join(parts)


def _write_png(width: int, height: int, pixels: bytes) -> bytes:
    """Return pixels as a PNG file.

    Pillow would try several filters for each row, which takes twice as long and makes screenshots hardly smaller.
    """
    row = 3 * width
    unfiltered = b"".join(b"\0" + pixels[start : start + row] for start in range(0, len(pixels), row))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)  # 8 bits for each of three colors
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(unfiltered, _PNG_COMPRESSION)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
