"""What a person takes away from the browser: pictures that a figure can hold, and names for files.

What a newcomer gets wrong: the tables keep thumbnails of 256 pixels, which is little for a paper. A home knows where
its originals lay, and an original is taken for one only while its bytes are those that its id is the hash of.
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

_MOST = 1960
"""Pixels of a picture's longer side: 300 a inch where it is 16.6 cm."""
_STANDS_FOR_ITSELF = (b"\x89PNG", b"\xff\xd8\xff")


def figure_image(root: Path | None, image_id: str, thumbnail: bytes) -> bytes | None:
    """The picture as PNG or JPEG: the original where the warehouse `root` knows it, else the thumbnail.

    None where neither can be read.
    """
    original = None if root is None else find_original(root, image_id)
    if original is not None:
        try:
            return _jpeg(open_image(original))
        except UserError:  # then the thumbnail has to do
            pass
    return thumbnail if thumbnail.startswith(_STANDS_FOR_ITSELF) else _png(thumbnail)


def find_original(root: Path, image_id: str) -> Path | None:
    """The file that an image was made of, while it is where it was and has the same bytes."""
    if not re.fullmatch(r"[0-9a-f]{16}", image_id):
        return None
    places = [*root.glob(f"images/*/originals/{image_id}"), *_observed(root, image_id)]
    return next((path for path in places if path.is_file() and hash_file(path) == image_id), None)


def _observed(root: Path, image_id: str) -> Iterator[Path]:
    """The files with that hash in the folders that image sets come from."""
    for memory in sorted(root.glob("observed/images.*.source.json")):
        try:
            yield from (Path(path) for path, state in read_json_object(memory).items() if state[2] == image_id)
        except (TypeError, LookupError):
            continue


def _jpeg(image: Image) -> bytes:
    image.thumbnail((_MOST, _MOST))
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
    """A name for a file that every system takes, and that says what is in it: letters, digits, `-` and `_`."""
    plain = (unicodedata.normalize("NFKD", str(part)).encode("ascii", "ignore").decode() for part in parts)
    words = (re.sub(r"[^A-Za-z0-9-]+", "-", part).strip("-")[:48] for part in plain)
    return "_".join(word for word in words if word) or "latentlens"
