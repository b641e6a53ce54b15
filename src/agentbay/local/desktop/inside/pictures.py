"""Screenshots."""

from __future__ import annotations

import io
import struct
from typing import Any

from Xlib import X

from agentbay.local.desktop.inside.refusal import Refused

_JPEG_QUALITY = 85  # percent
_PNG_COMPRESSION = 1  # the fastest: a screenshot is looked at and thrown away


def take_screenshot(display: Any, image_format: str) -> bytes:
    """Return width and height of the screen, as 32-bit numbers, and the image."""
    from PIL import Image

    if image_format not in ("png", "jpeg"):
        raise Refused(f"format must be png or jpeg, not {image_format!r:.80}")
    root = display.screen().root
    geometry = root.get_geometry()
    width, height = geometry.width, geometry.height
    grabbed = root.get_image(0, 0, width, height, X.ZPixmap, 0xFFFFFFFF)
    image = Image.frombuffer("RGB", (width, height), grabbed.data, "raw", "BGRX", 0, 1)
    file = io.BytesIO()
    if image_format == "png":
        image.save(file, "PNG", compress_level=_PNG_COMPRESSION)
    else:
        image.save(file, "JPEG", quality=_JPEG_QUALITY)
    return struct.pack("<II", width, height) + file.getvalue()
