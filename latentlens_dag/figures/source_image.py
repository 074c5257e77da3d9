"""Images for exported figures, and names of exported files.

Note: tables hold thumbnails of 256 pixels, which is little for a paper. A home knows where its originals were; a file
is taken for the original only while its bytes have the hash that is the image's id.
"""

from __future__ import annotations

import io
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from latentlens_dag.errors import UserError
from latentlens_dag.inputs.images import FORMATS, open_image
from latentlens_dag.storage.files import read_json_object
from latentlens_dag.storage.hashing import hash_file

if TYPE_CHECKING:
    from PIL.Image import Image

_MAX_SIDE = 1960
"""Pixels of the longer side: 300 per inch at 16.6 cm."""
_PNG_OR_JPEG = (b"\x89PNG", b"\xff\xd8\xff")


def figure_image(root: Path | None, image_id: str, thumbnail: bytes) -> bytes | None:
    """The image as PNG or JPEG: the original if the warehouse `root` has it, else the thumbnail; None if unreadable."""
    original = None if root is None else find_original(root, image_id)
    if original is not None:
        try:
            return _jpeg(open_image(original))
        except UserError:  # the thumbnail, then
            pass
    return thumbnail if thumbnail.startswith(_PNG_OR_JPEG) else _png(thumbnail)


def find_original(root: Path, image_id: str) -> Path | None:
    """The original file of an image, if it is still there with the same bytes."""
    if not re.fullmatch(r"[0-9a-f]{16}", image_id):
        return None
    candidates = [*root.glob(f"images/*/originals/{image_id}"), *_observed(root, image_id)]
    return next((path for path in candidates if path.is_file() and hash_file(path) == image_id), None)


def _observed(root: Path, image_id: str) -> Iterator[Path]:
    """The files with that hash in the source folders of image sets."""
    for file in sorted(root.glob("observed/images.*.source.json")):
        try:
            yield from (Path(path) for path, state in read_json_object(file).items() if state[2] == image_id)
        except (TypeError, LookupError):
            continue


def _jpeg(image: Image) -> bytes:
    image.thumbnail((_MAX_SIDE, _MAX_SIDE))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=92, subsampling=0)
    return buffer.getvalue()


def _png(picture: bytes) -> bytes | None:
    from PIL import Image

    buffer = io.BytesIO()
    try:
        with Image.open(io.BytesIO(picture), formats=FORMATS) as image:
            image.convert("RGB").save(buffer, "PNG")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None
    return buffer.getvalue()


def file_stem(*parts: object) -> str:
    """A descriptive file name that is valid on every system: letters, digits, `-` and `_`."""
    plain = (unicodedata.normalize("NFKD", str(part)).encode("ascii", "ignore").decode() for part in parts)
    words = (re.sub(r"[^A-Za-z0-9-]+", "-", part).strip("-")[:48] for part in plain)
    return "_".join(word for word in words if word) or "latentlens"
