"""From a folder of pictures to an image set: ids, sizes, thumbnails, batches.

An image's id is the hash of its file's bytes and decides its batch, so names and order change nothing;
two files with equal bytes are one image. What a newcomer gets wrong: the warehouse keeps thumbnails for
people; a model is always shown the original file, which must stay where the source says.
"""

from __future__ import annotations

import contextlib
import io
import struct
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pyarrow as pa

from latentlens_dag.errors import UserError
from latentlens_dag.schema import IMAGES
from latentlens_dag.storage.hashing import hash_bytes, shard_of

if TYPE_CHECKING:
    from PIL.Image import Image

_SUFFIXES = {
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "JPEG": (".jpeg", ".jpg"),
    "PNG": (".png",),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
}
FORMATS = tuple(_SUFFIXES)
"""What every `Image.open` of this package names as its `formats`. Left to itself, Pillow goes by a file's content and
knows some forty formats: a PostScript file called .png would have it start Ghostscript."""
SUFFIXES = {suffix for suffixes in _SUFFIXES.values() for suffix in suffixes}
THUMBNAIL_SIDE = 256
# What Pillow's readers raise on damaged files.
_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error)


class ImageFile(NamedTuple):
    """One picture of a source, by the hash of its bytes."""

    image_id: str
    path: Path
    name: str | None = None
    """What a table calls it; a file of a folder is called by its path."""


def list_images(folder: Path) -> list[ImageFile]:
    """The pictures in a folder and below it, in order of id, equal ones once.

    Raises:
        UserError: where the folder is missing or holds no picture.
    """
    if not folder.is_dir():
        raise UserError(
            f"The image folder {folder} does not exist. Correct `source.folder` in the defs.yaml beside it."
        )
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not files:
        raise UserError(f"The image folder {folder} holds no picture ({', '.join(sorted(SUFFIXES))}).")
    by_id: dict[str, ImageFile] = {}
    for path in files:
        image_id = hash_bytes(path.read_bytes())
        by_id.setdefault(image_id, ImageFile(image_id, path))
    return [by_id[image_id] for image_id in sorted(by_id)]


def batch_of_images(folder: Path, batch: int, batches: int) -> list[ImageFile]:
    """The pictures of one batch, in order of id."""
    return [file for file in list_images(folder) if shard_of(file.image_id, batches) == batch]


def open_image(path: Path) -> Image:
    """A picture as a person sees it, as RGB: upright, on white, the first frame.

    It is turned as its EXIF orientation says; what is transparent is put on white; of an animation, or of a file of
    several pages, the first one is taken; gray of 16 bits is scaled to 8 bits; CMYK and palettes are converted.

    Raises:
        UserError: where the file cannot be opened or read as a picture, is of no format of FORMATS, is too large
            (Pillow's own limit, `Image.MAX_IMAGE_PIXELS`), or has no known range of brightness (32 bits per pixel).
    """
    from PIL import Image, ImageOps

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of tags and comments that are damaged, where the pixels are not
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as image:
                return _on_white(_in_8_bits(ImageOps.exif_transpose(image), path))
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise UserError(
            f"{path} has more than {Image.MAX_IMAGE_PIXELS:,} pixels, the most that are read: it may be damaged, or "
            "made to fill the memory. Make it smaller (models scale it down anyway) or remove it."
        ) from error
    except _UNREADABLE as error:
        raise _unreadable(path, error) from error


def image_table(files: list[ImageFile], folder: Path) -> pa.Table:
    """The table of some pictures (IMAGES), with thumbnails; names are relative to the folder."""
    rows = [_row(file, folder) for file in files]
    return pa.Table.from_pylist(rows, schema=IMAGES)


def original_files(images: pa.Table, folder: Path) -> list[ImageFile]:
    """The original files of a table of pictures (IMAGES), which must still be what they were.

    Raises:
        UserError: where a file is gone or has other bytes.
    """
    rows = zip(images["image_id"].to_pylist(), images["file_name"].to_pylist(), strict=True)
    return check_unchanged([ImageFile(image_id, folder / name) for image_id, name in rows])


def check_unchanged(files: list[ImageFile]) -> list[ImageFile]:
    """The files themselves; errors as `original_files`."""
    for file in files:
        if not file.path.is_file() or hash_bytes(file.path.read_bytes()) != file.image_id:
            raise UserError(f"{file.path} was changed or removed while the study was being built. Build again.")
    return files


def read_images(files: list[ImageFile]) -> Iterator[tuple[str, Image]]:
    """Ids and pictures, one at a time."""
    for file in files:
        yield file.image_id, open_image(file.path)


def _unreadable(path: Path, error: Exception) -> UserError:
    """What is wrong with a file that Pillow did not read, and the way out."""
    from PIL import UnidentifiedImageError

    if isinstance(error, OSError) and error.errno is not None:
        return UserError(f"{path} cannot be opened ({error.strerror}). Correct the name, or who may read it.")
    kind = _other_format(path) if isinstance(error, UnidentifiedImageError) else None
    if kind is not None:
        return UserError(
            f"{path} cannot be read as a picture: by its content it is of the format {kind}, and only "
            f"{', '.join(FORMATS)} are read, whatever a file is called. Convert it to PNG or remove it."
        )
    return UserError(
        f"{path} cannot be read as a picture ({error}): it is damaged, cut short, or no picture of the formats "
        f"{', '.join(FORMATS)}. Replace or remove it."
    )


def _other_format(path: Path) -> str | None:
    """Which format outside FORMATS a file begins like; of Pillow's formats only the signatures are used."""
    from PIL import Image

    with path.open("rb") as file:
        start = file.read(16)  # what Pillow gives to them
    Image.init()
    for kind, (_, accepts) in Image.OPEN.items():
        with contextlib.suppress(IndexError, struct.error):  # of files that are shorter than a signature
            if kind not in FORMATS and accepts is not None and accepts(start):
                return kind
    return None


def _in_8_bits(image: Image, path: Path) -> Image:
    """The picture with 8 bits per channel; Pillow's own conversion makes 16 bits white from 256 on."""
    import numpy as np
    from PIL import Image

    if image.mode in ("I", "F"):
        raise UserError(
            f"{path} has 32 bits per pixel, and no file says which of its values is white. Save it with 8 or 16 bits."
        )
    if not image.mode.startswith("I;16"):
        return image
    values = np.asarray(image)
    gray = (values >> 8).astype(np.uint8)
    gray[values == image.info.get("transparency", -1)] = 255
    return Image.fromarray(gray)


def _on_white(image: Image) -> Image:
    """The picture as RGB; colors that are hidden under transparency are not to come to light."""
    from PIL import Image

    if not image.has_transparency_data:
        return image.convert("RGB")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")


def _row(file: ImageFile, folder: Path) -> dict[str, object]:
    image = _open_named(file)
    return {
        "image_id": file.image_id,
        "file_name": file.name or file.path.relative_to(folder).as_posix(),
        "width": image.width,
        "height": image.height,
        "thumbnail": _thumbnail(image),
    }


def _open_named(file: ImageFile) -> Image:
    """The picture; an error about one of a table says what the table calls it."""
    try:
        return open_image(file.path)
    except UserError as error:
        raise error if file.name is None else UserError(f"Picture {file.name} of the source: {error}") from error


def _thumbnail(image: Image) -> bytes:
    small = image.copy()
    small.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", quality=85, method=4)
    return buffer.getvalue()
