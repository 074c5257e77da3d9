"""From a folder of images to an image set: ids, sizes, thumbnails, batches.

The id of an image is the hash of its file's bytes and decides its batch, so names and order have no influence; two
files with equal bytes are one image. A file is read whole, its bytes are compared with its id, and the picture is
decoded from them, so that a file which changes meanwhile cannot give another picture under the same id. Note:
thumbnails are for the browser only; a model reads the original file, which must stay where the source says.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import warnings
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple

import pyarrow as pa
from cachetools import LRUCache, cached

from latentlens_dag.errors import UserError
from latentlens_dag.schema import IMAGES
from latentlens_dag.storage.file_hashes import files_below
from latentlens_dag.storage.hashing import hash_bytes, shards_of

if TYPE_CHECKING:
    from PIL.Image import Image

NAMES = pa.schema([("image_id", pa.string()), ("file_name", pa.string())])
"""Columns of the list of an image set."""

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
MAX_SIDE = 100_000
"""The most pixels of a side: Pillow holds each row apart, so that 1 x 89,000,000 pixels would take two gigabytes."""
_RECENT_BYTES = 256 * 2**20
"""Of the files read last, which the next step of a build reads too. Larger batches are read once per step."""
_LARGEST_NAMED = 5  # of the suffixes that are left out, those a report names


class ImageFile(NamedTuple):
    """One image of a source; the id is the hash of its bytes."""

    image_id: str
    path: Path
    name: str | None = None
    """Its name in a table; None for a file of a folder, which is named by its path."""
    size: tuple[int, int] | None = None
    """Width and height of the upright picture, in pixels, where they are known."""


class ChangedFileError(UserError):
    """A file no longer has the bytes that its id is the hash of."""

    def __init__(self, path: Path) -> None:
        """Take the file."""
        super().__init__(f"{path} was changed or removed while the study was being built. Build again.")
        self.path = path


def image_names(folder: Path, hashes: Mapping[str, str]) -> pa.Table:
    """The distinct images in a folder and its subfolders (NAMES), sorted by id.

    Of files with equal bytes, the first by path names the image.

    Args:
        folder: with images, beside other files.
        hashes: of the files in it, hidden ones too, as `file_hashes` gives them.

    Raises:
        UserError: if the folder is missing or contains no image, or an image is a link to nothing or has a name that
            is not text.
    """
    if not folder.is_dir():
        raise UserError(
            f"The image folder {folder} does not exist. Correct `source.folder` in the defs.yaml beside it."
        )
    _refuse_dangling_links(folder)
    images = {file: digest for file, digest in hashes.items() if _is_image(file)}
    if not images:
        raise UserError(f"The image folder {folder} contains no image ({', '.join(sorted(SUFFIXES))}).")
    first: dict[str, str] = {}
    for file, image_id in images.items():
        first.setdefault(image_id, file)
    ids = sorted(first)
    return pa.table([ids, [_relative(first[image_id], folder) for image_id in ids]], NAMES)


class FolderReport(NamedTuple):
    """What is in a folder of images beside those that are read once, and how often."""

    others: Mapping[str, int]
    """Files that are no images by their names, by suffix; hidden ones and README.md do not count."""
    repeated: int
    """Images with the bytes of another one, which count once."""
    hidden: int
    """Images that are read though their names, or those of their folders, begin with a dot."""
    linked_folders: Sequence[str]
    """Links to folders, which are not followed; relative to the folder, sorted."""

    def __str__(self) -> str:
        """What was left out and why, in sentences; empty if nothing was."""
        return " ".join(self._sentences())

    def _sentences(self) -> Iterator[str]:
        if self.others:
            most = sorted(self.others.items(), key=lambda other: (-other[1], other[0]))
            named = ", ".join(f"{number:,} {suffix or 'without suffix'}" for suffix, number in most[:_LARGEST_NAMED])
            more = f", and {len(most) - _LARGEST_NAMED} other suffixes" if most[_LARGEST_NAMED:] else ""
            read = ", ".join(sorted(SUFFIXES))
            yield f"Left out, since only {read} are read: {sum(self.others.values()):,} files ({named}{more})."
        if self.linked_folders:
            first = self.linked_folders[0]
            yield f"Left out, since links to folders are not followed: {len(self.linked_folders):,}, such as {first}."
        if self.repeated:
            yield f"Counted once, since their bytes are those of another image: {self.repeated:,}."
        if self.hidden:
            yield f"Read though hidden (a name that begins with a dot): {self.hidden:,}."


def report_folder(folder: Path, hashes: Mapping[str, str], read_otherwise: Collection[str] = ()) -> FolderReport:
    """Count what `image_names` leaves out of a folder, and what it may take by accident.

    Arguments as there, and suffixes of files that are read as something else, such as captions.
    """
    images = [file for file in hashes if _is_image(file)]
    inside = len(str(folder))
    others = Counter(
        os.path.splitext(file)[1].lower()  # noqa: PTH122 - for 100,000 files
        for file in hashes
        if not _is_image(file) and not _is_hidden(file[inside:])
    )
    for suffix in read_otherwise:
        del others[suffix]
    links = [
        Path(parent, name).relative_to(folder).as_posix()
        for parent, folders, _ in os.walk(folder)
        for name in folders
        if os.path.islink(os.path.join(parent, name))  # noqa: PTH114, PTH118
    ]
    repeated = len(images) - len({hashes[file] for file in images})
    return FolderReport(others, repeated, sum(_is_hidden(file[inside:]) for file in images), sorted(links))


def files_of_batch(names: pa.Table, batch: int, batches: int) -> pa.Table:
    """The rows of a list of images (NAMES) that fall into one batch."""
    return names.filter(pa.array(shards_of(names["image_id"], batches) == batch))


def original_files(images: pa.Table, folder: Path) -> list[ImageFile]:
    """The files of a folder that a table of images is about.

    Args:
        images: NAMES, or IMAGES, which also has their sizes.
        folder: of the source.
    """
    names = images["file_name"].to_pylist()
    paths = [folder / name for name in names]
    return image_files(images, paths, [None] * len(paths))


def image_files(images: pa.Table, paths: Sequence[Path], names: Sequence[str | None]) -> list[ImageFile]:
    """The files of a table of images, as `original_files`, at these paths and with these names."""
    sizes: Sequence[tuple[int, int] | None] = [None] * len(images)
    if "width" in images.column_names:
        sizes = list(zip(images["width"].to_pylist(), images["height"].to_pylist(), strict=True))
    return [ImageFile(*fields) for fields in zip(images["image_id"].to_pylist(), paths, names, sizes, strict=True)]


def open_image(path: Path) -> Image:
    """Open an image as RGB, the way a viewer shows it.

    It is rotated by its EXIF orientation and composited on white; of an animation or a file of several pages, the first
    frame is taken; 16-bit grayscale is scaled to 8 bits; CMYK and palettes are converted.

    Raises:
        UserError: if the file cannot be opened or decoded, is in none of FORMATS, is too large (Pillow's limit,
            `Image.MAX_IMAGE_PIXELS`) or too long (MAX_SIDE), or has 32 bits per pixel and so no known range of
            brightness.
    """
    return _decode(path, path)


def _decode(source: Path | io.BytesIO, path: Path) -> Image:
    """As `open_image`, of a file at `path` whose bytes may have been read already."""
    from PIL import Image

    from latentlens_dag.storage.pixels import as_rgb, upright

    try:
        with Image.open(source, formats=FORMATS) as image:
            if max(image.size) > MAX_SIDE:
                raise _too_long(path, image.size)
            # Pillow itself only warns up to twice the limit; a filter of warnings would be that of all threads.
            if Image.MAX_IMAGE_PIXELS is not None and image.width * image.height > Image.MAX_IMAGE_PIXELS:
                raise _too_large(path)
            return as_rgb(upright(image), str(path))
    except UserError:
        raise
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise _too_large(path) from error
    except Exception as error:  # Pillow's readers raise what the damage leads to: KeyError, RuntimeError, ...
        raise _unreadable(path, error) from error


def image_table(files: Sequence[ImageFile], folder: Path) -> pa.Table:
    """The table of some images (IMAGES), with thumbnails; names are relative to the folder.

    Raises:
        UserError: as `read_image`.
    """
    with without_metadata_warnings():
        rows = [_row(file, folder) for file in files]
    return pa.Table.from_pylist(rows, schema=IMAGES)


def read_image(file: ImageFile) -> Image:
    """Read an image as `open_image` does, and check that it is the one with this id.

    A file that was read shortly before, by another step of the same build, is not opened again.

    Raises:
        ChangedFileError: if the file has gone or has other bytes.
        UserError: as `open_image`; about an image of a table, with its name there.
    """
    try:
        return _decode(io.BytesIO(_content(file)), file.path)
    except ChangedFileError:
        raise
    except UserError as error:
        raise error if file.name is None else UserError(f"Image {file.name} of the source: {error}") from error


def read_in_chunks(files: Sequence[ImageFile], size: int) -> Iterator[list[Image]]:
    """Read images, `size` at a time; the next ones are decoded in a thread while the caller works with the last.

    At most two chunks are in memory, if the caller keeps none. Pillow decodes without Python's lock.

    Raises:
        UserError: as `read_image`, when the chunk of the image is due.
    """
    chunks = [files[start : start + size] for start in range(0, len(files), size)]
    with ThreadPoolExecutor(1, "images") as thread:
        ahead = thread.submit(_read_all, chunks[0]) if chunks else None
        for following in [*chunks[1:], None]:
            if ahead is None:
                return
            images = ahead.result()
            ahead = None if following is None else thread.submit(_read_all, following)
            yield images
            del images  # before the next ones are waited for


def _read_all(files: Sequence[ImageFile]) -> list[Image]:
    return [read_image(file) for file in files]


def _content(file: ImageFile) -> bytes:
    """The bytes of a file, which have its id as their hash."""
    try:
        facts = file.path.stat()
        return _read_bytes(file.path, file.image_id, facts.st_size, facts.st_mtime_ns)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise ChangedFileError(file.path) from error
    except OSError as error:
        raise _unreadable(file.path, error) from error


def forget_files() -> None:
    """Give the memory of the files read last back."""
    _read_bytes.cache_clear()


@contextlib.contextmanager
def without_metadata_warnings() -> Iterator[None]:
    """Silence Pillow's warnings, which are about damaged metadata of intact pixels, here and in threads begun here.

    Note: only for the main thread. Filters are those of the process, and threads would restore one another's.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        yield


@cached(LRUCache(_RECENT_BYTES, len), lock=Lock())
def _read_bytes(path: Path, image_id: str, size: int, time_ns: int) -> bytes:
    content = path.read_bytes()
    if hash_bytes(content) != image_id:
        raise ChangedFileError(path)
    return content


def _is_image(file: str) -> bool:
    return os.path.splitext(file)[1].lower() in SUFFIXES  # noqa: PTH122 - as below


def _is_hidden(file: str) -> bool:
    return f"{os.sep}." in file


def _refuse_dangling_links(folder: Path) -> None:
    """Refuse links to images that are gone, of which the observation knows nothing."""
    for file in filter(_is_image, files_below(folder, hidden=True)):
        if os.path.islink(file) and not os.path.exists(file):  # noqa: PTH110, PTH114 - for 100,000 files
            raise UserError(f"{file} is a link to {os.readlink(file)}, which does not exist. Correct or remove it.")  # noqa: PTH115


def _relative(file: str, folder: Path) -> str:
    """The name of a file in a table of images.

    Raises:
        UserError: if it is not UTF-8, and so no text.
    """
    name = Path(file).relative_to(folder).as_posix()
    if not name.isascii():
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise UserError(
                f"The name of the image {os.fsencode(name)!r} in {folder} is not UTF-8, so no table can have it. "
                "Rename the file."
            ) from error
    return name


def _too_large(path: Path) -> UserError:
    from PIL import Image

    return UserError(
        f"{path} has more than {Image.MAX_IMAGE_PIXELS:,} pixels, the most that are read: it may be damaged, or made "
        "to exhaust memory. Make it smaller (models scale it down anyway) or remove it."
    )


def _too_long(path: Path, size: tuple[int, int]) -> UserError:
    return UserError(
        f"{path} has {size[0]:,} x {size[1]:,} pixels, and {MAX_SIDE:,} are the most of a side: it may be damaged, or "
        "made to exhaust memory. Cut it into parts or remove it."
    )


def _unreadable(path: Path, error: Exception) -> UserError:
    """The error for a file that Pillow could not read."""
    from PIL import UnidentifiedImageError

    if isinstance(error, OSError) and error.errno is not None:
        return UserError(f"{path} cannot be opened ({error.strerror}). Correct its name or permissions.")
    if isinstance(error, MemoryError):
        return UserError(f"{path} takes more memory than there is. Make it smaller, or remove it.")
    kind = _other_format(path) if isinstance(error, UnidentifiedImageError) else None
    if kind is not None:
        return UserError(
            f"{path} cannot be read as an image: by its content it is {kind}, and only {', '.join(FORMATS)} are read, "
            "whatever the file is called. Convert it to PNG or remove it."
        )
    # Pillow names the bytes in memory where it names the file.
    reason = re.sub(r"\s*<_io\.BytesIO[^>]*>", "", str(error)) or type(error).__name__
    return UserError(
        f"{path} cannot be read as an image ({reason}): it is damaged, cut short, or in "
        f"none of the formats {', '.join(FORMATS)}. Replace or remove it."
    )


def _other_format(path: Path) -> str | None:
    """The format outside FORMATS that a file's signature belongs to, by Pillow's list of signatures."""
    from PIL import Image

    with path.open("rb") as file:
        start = file.read(16)  # as many bytes as Pillow passes on
    Image.init()
    for kind, (_, accepts) in Image.OPEN.items():
        with contextlib.suppress(Exception):  # the file is shorter than a signature
            if kind not in FORMATS and accepts is not None and accepts(start):
                return kind
    return None


def _row(file: ImageFile, folder: Path) -> dict[str, object]:
    image = read_image(file)
    return {
        "image_id": file.image_id,
        "file_name": file.name or file.path.relative_to(folder).as_posix(),
        "width": image.width,
        "height": image.height,
        "thumbnail": _thumbnail(image),
    }


def _thumbnail(image: Image) -> bytes:
    small = image.copy()
    small.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", quality=85, method=4)
    return buffer.getvalue()
