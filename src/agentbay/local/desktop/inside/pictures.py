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
_ROWS = 25  # in one answer of the X server; Xlib copies large ones over and over
_ALL_PLANES = 0xFFFFFFFF


def take_screenshot(display: Any, image_format: str) -> bytes:
    """Return width and height of the screen, as 32-bit numbers, and the image."""
    from PIL import Image

    if image_format not in ("png", "jpeg"):
        raise Refused(f"format must be png or jpeg, not {image_format!r:.80}")
    geometry = display.screen().root.get_geometry()
    width, height = geometry.width, geometry.height
    pixels, size = _grab(display, width, height), (width, height)
    if image_format == "png":
        content = _write_png(width, height, _png_rows(Image.frombuffer("RGBX", size, pixels, "raw", "RGBX", 0, 1)))
    else:
        file = io.BytesIO()
        Image.frombuffer("RGB", size, pixels, "raw", "BGRX", 0, 1).save(file, "JPEG", quality=_JPEG_QUALITY)
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


def _png_rows(image: Any) -> bytes:
    """Return the rows of an image as a PNG file has them.

    Each is behind a byte that says that it has no filter.

    Args:
        image: Its bytes are blue, green, red and one of no meaning, taken for red, green, blue: so nothing is copied.
    """
    padded: bytes = image.tobytes("raw", "BGR", 3 * image.width + 1)  # each row with a byte of 0 at its end
    return b"\0" + padded[:-1]


def _write_png(width: int, height: int, rows: bytes) -> bytes:
    """Return rows as a PNG file.

    Pillow would try several filters for each row, which takes twice as long and makes screenshots hardly smaller.
    """
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)  # 8 bits for each of three colors
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows, _PNG_COMPRESSION)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
