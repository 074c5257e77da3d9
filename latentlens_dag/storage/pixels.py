"""The pixels of a stored picture, whatever its mode, as a viewer shows them."""

from __future__ import annotations

import numpy as np
from PIL import Image
from PIL.Image import Transpose

from latentlens_dag.errors import UserError

_PIXELS_AT_ONCE = 1 << 22
_ORIENTATION = 0x112  # the tag of EXIF
_TURNS = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}
_SAYS_ORIENTATION = ("exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp")  # where Pillow looks for it


def upright(image: Image.Image) -> Image.Image:
    """The image turned as the orientation in its EXIF says; whatever else that says does not count.

    What it gives says no orientation any more, so that it is turned once, however often it is passed on. Pillow's own
    `exif_transpose` also writes the EXIF anew, and fails at any tag that is damaged.
    """
    image.load()  # before its EXIF is read: TIFF turns its pixels itself
    try:
        orientation = image.getexif().get(_ORIENTATION)
    except Exception:  # of EXIF that is no EXIF
        orientation = None
    turn = _TURNS.get(orientation) if isinstance(orientation, int) else None
    if turn is None:
        return image
    turned = image.transpose(turn)
    for name in _SAYS_ORIENTATION:
        turned.info.pop(name, None)
    return turned


def as_rgb(image: Image.Image, name: str) -> Image.Image:
    """An image of any mode as a viewer shows it: RGB, composited on white; 16-bit gray is scaled to 8 bits.

    Raises:
        UserError: if it has 32 bits per pixel, and so no known range of brightness; `name` is for the message.
    """
    if image.mode in ("I", "F"):
        raise UserError(
            f"{name} has 32 bits per pixel, and it does not say which value is white. Save it with 8 or 16 bits."
        )
    if image.mode.startswith("I;16"):  # Pillow's own conversion clips all values above 255
        values = np.asarray(image)
        gray = (values >> 8).astype(np.uint8)
        gray[values == image.info.get("transparency", -1)] = 255
        return Image.fromarray(gray).convert("RGB")
    if image.has_transparency_data:  # colors under transparent pixels stay hidden
        return _on_white(image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _on_white(image: Image.Image) -> Image.Image:
    """A transparent image on white, some rows at a time: four pictures of 89 million pixels would take 1.4 GB."""
    found = Image.new("RGB", image.size)
    rows = max(1, _PIXELS_AT_ONCE // max(1, image.width))
    for top in range(0, image.height, rows):
        part = image.crop((0, top, image.width, min(top + rows, image.height))).convert("RGBA")
        found.paste(Image.alpha_composite(Image.new("RGBA", part.size, "white"), part).convert("RGB"), (0, top))
    return found
