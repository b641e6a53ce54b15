"""Touch, keys and pictures of a phone's screen."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import json
import shlex
from typing import TYPE_CHECKING, Any

from agentbay.local.phone.adb import Phone, PhoneFailed

if TYPE_CHECKING:
    from PIL.Image import Image

_JPEG_QUALITY = 85  # percent
_SCROLLED_PART = 0.5  # of the screen's height: the rest overlaps, so that the places can be found again
_SCROLL_MS = 600  # slow enough to stop where the finger does
_REST_SECONDS = 0.6  # for the screen to come to rest
_MIN_OVERLAP = 0.1  # of the height, in equal rows


async def type_text(phone: Phone, text: str) -> None:
    """Type text into what has the focus.

    Raises:
        PhoneFailed: Android's `input` cannot type one of the characters.
    """
    if not (text.isascii() and text.replace("\n", "").isprintable()):
        odd = next(one for one in text if not one.isascii() or (not one.isprintable() and one != "\n"))
        raise PhoneFailed(f"a plugged-in phone is sent printable ASCII only, and {odd!r} is not")
    for number, line in enumerate(text.split("\n")):
        if number:
            await phone.run("input keyevent KEYCODE_ENTER")
        # `input` takes "%s" for a space, so a real one is sent in two parts.
        for part in line.replace("%s", "%\0s").split("\0"):
            if part:
                await phone.run(f"input text {shlex.quote(part.replace(' ', '%s'))}")


async def take_screenshot(phone: Phone, image_format: str) -> str:
    """Return a screenshot as the tool's JSON.

    Raises:
        PhoneFailed: The phone took none.
    """
    image = await _capture(phone)
    return await asyncio.to_thread(_to_json, image, image_format, _JPEG_QUALITY)


async def take_long_screenshot(phone: Phone, max_screens: int, image_format: str, quality: int | None) -> str:
    """Scroll down, and return one screenshot of several screens as the tool's JSON.

    It ends early where scrolling changes nothing.

    Raises:
        PhoneFailed: The phone took none.
    """
    whole = last = await _capture(phone)
    for _ in range(max_screens - 1):
        x, bottom, top = last.width // 2, int(last.height * 0.75), int(last.height * (0.75 - _SCROLLED_PART))
        await phone.run(f"input swipe {x} {bottom} {x} {top} {_SCROLL_MS}")
        await asyncio.sleep(_REST_SECONDS)
        following = await _capture(phone)
        added = await asyncio.to_thread(_append, whole, last, following)
        if added is None:
            break
        whole, last = added, following
    return await asyncio.to_thread(_to_json, whole, image_format, quality or _JPEG_QUALITY)


async def _capture(phone: Phone) -> Image:
    data = await phone.run("screencap -p")
    return await asyncio.to_thread(_decode, data)


def _decode(data: bytes) -> Image:
    from PIL import Image, UnidentifiedImageError

    try:
        image = Image.open(io.BytesIO(data), formats=["PNG"])
        return image.convert("RGB")
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise PhoneFailed("the phone sent no picture of its screen") from error


def _to_json(image: Image, image_format: str, quality: int) -> str:
    if image_format not in ("png", "jpeg"):
        raise PhoneFailed(f"format must be png or jpeg, not {image_format!r:.80}")
    file = io.BytesIO()
    image.save(file, image_format.upper(), **({"quality": quality} if image_format == "jpeg" else {}))
    fields = {"type": "image", "mime_type": f"image/{image_format}", "width": image.width, "height": image.height}
    return json.dumps({**fields, "data": base64.b64encode(file.getvalue()).decode()})


def _append(whole: Image, last: Image, following: Image) -> Image | None:
    """Return the whole picture with the rows that scrolling has shown.

    None means that there are none.

    Bars at the top and the bottom stay where they are, so they are left out of the comparison and of the seam.
    """
    from PIL import Image

    if last.size != following.size:  # the phone was turned
        return None
    before, after = _row_hashes(last), _row_hashes(following)
    height = len(before)
    header = next((row for row in range(height) if before[row] != after[row]), height)
    footer = next((row for row in range(height) if before[-1 - row] != after[-1 - row]), height)
    if header == height:
        return None
    shift = _find_shift(before[header : height - footer], after[header : height - footer])
    if not shift:
        return None
    # The footer of the whole picture gives way to the new rows, which bring it along again.
    seam = whole.height - footer
    joined = Image.new("RGB", (whole.width, whole.height + shift))
    joined.paste(whole.crop((0, 0, whole.width, seam)), (0, 0))
    joined.paste(following.crop((0, height - footer - shift, whole.width, height)), (0, seam))
    return joined


def _row_hashes(image: Image) -> list[bytes]:
    pixels, stride = memoryview(image.tobytes()), image.width * 3
    return [
        hashlib.blake2b(pixels[start : start + stride], digest_size=8).digest()
        for start in range(0, len(pixels), stride)
    ]


def _find_shift(before: list[Any], after: list[Any]) -> int:
    """Return how many rows the content moved up, or 0."""
    needed = int(len(before) * _MIN_OVERLAP) or 1
    for shift in range(1, len(before) - needed + 1):
        if before[shift:] == after[: len(after) - shift]:
            return shift
    return 0
