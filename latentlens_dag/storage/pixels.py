"""The pixels of a stored picture, whatever its mode, as a viewer shows them."""

from __future__ import annotations

import numpy as np
from PIL import Image

from latentlens_dag.errors import UserError


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
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")
