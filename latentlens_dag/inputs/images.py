"""From a folder of images to an image set: ids, sizes, thumbnails, batches.

The id of an image is the hash of its file's bytes and decides its batch, so names and order have no influence; two
files with equal bytes are one image. Note: thumbnails are for the browser only; a model reads the original file, which
must stay where the source says.
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
"""The `formats` of every `Image.open` in this package. By default Pillow detects some forty formats by content: a
PostScript file named .png would start Ghostscript."""
SUFFIXES = {suffix for suffixes in _SUFFIXES.values() for suffix in suffixes}
THUMBNAIL_SIDE = 256
_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error)  # Pillow's errors for damaged files


class ImageFile(NamedTuple):
    """One image of a source; the id is the hash of its bytes."""

    image_id: str
    path: Path
    name: str | None = None
    """Its name in a table; None for a file of a folder, which is named by its path."""


def list_images(folder: Path) -> list[ImageFile]:
    """The distinct images in a folder and its subfolders, sorted by id.

    Raises:
        UserError: if the folder is missing or contains no image.
    """
    if not folder.is_dir():
        raise UserError(
            f"The image folder {folder} does not exist. Correct `source.folder` in the defs.yaml beside it."
        )
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not files:
        raise UserError(f"The image folder {folder} contains no image ({', '.join(sorted(SUFFIXES))}).")
    by_id: dict[str, ImageFile] = {}
    for path in files:
        image_id = hash_bytes(path.read_bytes())
        by_id.setdefault(image_id, ImageFile(image_id, path))
    return [by_id[image_id] for image_id in sorted(by_id)]


def batch_of_images(folder: Path, batch: int, batches: int) -> list[ImageFile]:
    """The images of one batch, sorted by id."""
    return [file for file in list_images(folder) if shard_of(file.image_id, batches) == batch]


def open_image(path: Path) -> Image:
    """Open an image as RGB, the way a viewer shows it.

    It is rotated by its EXIF orientation and composited on white; of an animation or a file of several pages, the first
    frame is taken; 16-bit grayscale is scaled to 8 bits; CMYK and palettes are converted.

    Raises:
        UserError: if the file cannot be opened or decoded, is in none of FORMATS, is too large (Pillow's limit,
            `Image.MAX_IMAGE_PIXELS`), or has 32 bits per pixel and so no known range of brightness.
    """
    from PIL import Image, ImageOps

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about damaged metadata of intact pixels
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as image:
                return _on_white(_in_8_bits(ImageOps.exif_transpose(image), path))
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise UserError(
            f"{path} has more than {Image.MAX_IMAGE_PIXELS:,} pixels, the most that are read: it may be damaged, or "
            "made to exhaust memory. Make it smaller (models scale it down anyway) or remove it."
        ) from error
    except _UNREADABLE as error:
        raise _unreadable(path, error) from error


def image_table(files: list[ImageFile], folder: Path) -> pa.Table:
    """The table of some images (IMAGES), with thumbnails; names are relative to the folder."""
    rows = [_row(file, folder) for file in files]
    return pa.Table.from_pylist(rows, schema=IMAGES)


def original_files(images: pa.Table, folder: Path) -> list[ImageFile]:
    """The original files of a table of images (IMAGES).

    Raises:
        UserError: if a file is missing or has changed.
    """
    rows = zip(images["image_id"].to_pylist(), images["file_name"].to_pylist(), strict=True)
    return check_unchanged([ImageFile(image_id, folder / name) for image_id, name in rows])


def check_unchanged(files: list[ImageFile]) -> list[ImageFile]:
    """Return the files; errors as in `original_files`."""
    for file in files:
        if not file.path.is_file() or hash_bytes(file.path.read_bytes()) != file.image_id:
            raise UserError(f"{file.path} was changed or removed while the study was being built. Build again.")
    return files


def read_images(files: list[ImageFile]) -> Iterator[tuple[str, Image]]:
    """Open images one at a time, with their ids."""
    for file in files:
        yield file.image_id, open_image(file.path)


def _unreadable(path: Path, error: Exception) -> UserError:
    """The error for a file that Pillow could not read."""
    from PIL import UnidentifiedImageError

    if isinstance(error, OSError) and error.errno is not None:
        return UserError(f"{path} cannot be opened ({error.strerror}). Correct its name or permissions.")
    kind = _other_format(path) if isinstance(error, UnidentifiedImageError) else None
    if kind is not None:
        return UserError(
            f"{path} cannot be read as an image: by its content it is {kind}, and only {', '.join(FORMATS)} are read, "
            "whatever the file is called. Convert it to PNG or remove it."
        )
    return UserError(
        f"{path} cannot be read as an image ({error}): it is damaged, cut short, or in none of the formats "
        f"{', '.join(FORMATS)}. Replace or remove it."
    )


def _other_format(path: Path) -> str | None:
    """The format outside FORMATS that a file's signature belongs to, by Pillow's list of signatures."""
    from PIL import Image

    with path.open("rb") as file:
        start = file.read(16)  # as many bytes as Pillow passes on
    Image.init()
    for kind, (_, accepts) in Image.OPEN.items():
        with contextlib.suppress(IndexError, struct.error):  # the file is shorter than a signature
            if kind not in FORMATS and accepts is not None and accepts(start):
                return kind
    return None


def _in_8_bits(image: Image, path: Path) -> Image:
    """The image with 8 bits per channel; Pillow's own conversion of 16 bits clips all values above 255."""
    import numpy as np
    from PIL import Image

    if image.mode in ("I", "F"):
        raise UserError(
            f"{path} has 32 bits per pixel, and the file does not say which value is white. Save it with 8 or 16 bits."
        )
    if not image.mode.startswith("I;16"):
        return image
    values = np.asarray(image)
    gray = (values >> 8).astype(np.uint8)
    gray[values == image.info.get("transparency", -1)] = 255
    return Image.fromarray(gray)


def _on_white(image: Image) -> Image:
    """The image as RGB, composited on white, so that colors under transparent pixels stay hidden."""
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
    """Open an image; errors about an image of a table contain its name in the table."""
    try:
        return open_image(file.path)
    except UserError as error:
        raise error if file.name is None else UserError(f"Image {file.name} of the source: {error}") from error


def _thumbnail(image: Image) -> bytes:
    small = image.copy()
    small.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", quality=85, method=4)
    return buffer.getvalue()
