import ast
import io
import os
import struct
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from latentlens_dag.dag.versions import content_version
from latentlens_dag.errors import UserError
from latentlens_dag.inputs import images
from latentlens_dag.inputs.images import (
    FORMATS,
    SUFFIXES,
    ChangedFileError,
    files_of_batch,
    image_names,
    image_table,
    open_image,
    original_files,
    read_image,
    read_in_chunks,
    report_folder,
)
from latentlens_dag.storage.file_hashes import file_hashes
from latentlens_dag.storage.hashing import hash_bytes
from latentlens_dag.storage.parquet import write_parquet
from latentlens_dag.storage.pixels import upright
from latentlens_dag.storage.warehouse import Warehouse
from tests.benchmarks.images import choose_batches, write_batches, write_images, write_regions, write_regions_file
from tests.helpers.image_files import batch_of_images, list_images, list_names
from tests.helpers.opened_files import opened_files


def _save(path: Path, seed: int, size: tuple[int, int] = (40, 30)) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def test_names_and_order_do_not_change_ids_and_equal_files_are_one_image(tmp_path: Path) -> None:
    for seed in range(4):
        _save(tmp_path / "a" / f"{seed}.png", seed)
        _save(tmp_path / "b" / "below" / f"{9 - seed}.png", seed)
    _save(tmp_path / "b" / "again.png", 0)
    assert [f.image_id for f in list_images(tmp_path / "a")] == [f.image_id for f in list_images(tmp_path / "b")]


def test_every_image_is_in_exactly_one_batch(tmp_path: Path) -> None:
    for seed in range(9):
        _save(tmp_path / f"{seed}.png", seed)
    batches = [batch_of_images(tmp_path, batch, 3) for batch in range(3)]
    assert sorted(f.image_id for files in batches for f in files) == [f.image_id for f in list_images(tmp_path)]


def test_the_table_has_sizes_and_thumbnails_of_at_most_256_pixels(tmp_path: Path) -> None:
    _save(tmp_path / "wide.png", 0, (600, 300))
    table = image_table(list_images(tmp_path), tmp_path)
    assert (table["width"][0].as_py(), table["height"][0].as_py()) == (600, 300)
    assert Image.open(io.BytesIO(table["thumbnail"][0].as_py())).size == (256, 128)


def test_a_picture_is_turned_upright(tmp_path: Path) -> None:
    image = Image.new("RGB", (40, 20), "red")
    exif = image.getexif()
    exif[0x0112] = 6  # turn by a quarter
    image.save(tmp_path / "turned.jpg", exif=exif)
    assert open_image(tmp_path / "turned.jpg").size == (20, 40)


def test_an_unreadable_picture_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n not a picture")
    with pytest.raises(UserError, match=r"broken\.png cannot be read"):
        image_table(list_images(tmp_path), tmp_path)


def test_a_folder_without_pictures_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="contains no image"):
        list_images(tmp_path)
    with pytest.raises(UserError, match="does not exist"):
        list_images(tmp_path / "absent")


def test_a_picture_that_changed_since_it_was_listed_is_refused(tmp_path: Path) -> None:
    _save(tmp_path / "a.png", 0)
    table = image_table(list_images(tmp_path), tmp_path)
    _save(tmp_path / "a.png", 1)
    with pytest.raises(UserError, match="changed or removed"):
        for file in original_files(table, tmp_path):
            read_image(file)


def test_a_folder_that_is_named_like_a_picture_is_none(tmp_path: Path) -> None:
    _save(tmp_path / "a.png", 0)
    (tmp_path / "trip.jpg").mkdir()
    assert list_names(tmp_path)["file_name"].to_pylist() == ["a.png"]


def test_a_link_to_a_picture_that_is_gone_is_named(tmp_path: Path) -> None:
    _save(tmp_path / "a.png", 0)
    (tmp_path / "b.png").symlink_to("gone.png")
    with pytest.raises(UserError, match=r"b\.png is a link to gone\.png"):
        list_names(tmp_path)


def test_a_picture_whose_name_is_not_utf_8_is_refused_by_name(tmp_path: Path) -> None:
    _save(tmp_path / "a.png", 0)
    with open(os.fsencode(tmp_path) + b"/caf\xe9.png", "wb") as file:  # noqa: PTH123 - no Path holds such bytes
        file.write((tmp_path / "a.png").read_bytes() + b"another")
    with pytest.raises(UserError, match=r"caf.xe9\.png"):
        list_names(tmp_path)


def _pixel(path: Path, x: int = 0, y: int = 0) -> tuple[int, ...]:
    image = open_image(path)
    assert image.mode == "RGB"
    return image.getpixel((x, y))


def test_one_pixel_is_a_picture(tmp_path: Path) -> None:
    Image.new("RGB", (1, 1), (10, 20, 30)).save(tmp_path / "dot.png")
    assert open_image(tmp_path / "dot.png").size == (1, 1)
    assert _pixel(tmp_path / "dot.png") == (10, 20, 30)


@pytest.mark.parametrize("side", [10_000, 20_000])  # of which Pillow would warn, and which it would refuse
def test_a_picture_that_would_fill_the_memory_is_refused_unread(tmp_path: Path, side: int) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    bomb = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    (tmp_path / "bomb.png").write_bytes(bomb)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserError, match=r"bomb\.png has more than 89,478,485 pixels.*Make it smaller"):
            open_image(tmp_path / "bomb.png")


def test_a_picture_has_as_many_pixels_as_the_limit_and_none_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    _save(tmp_path / "a.png", 0, (40, 30))
    for limit in (None, 1200):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        assert open_image(tmp_path / "a.png").size == (40, 30)
    assert not recwarn
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1199)
    with pytest.raises(UserError, match=r"a\.png has more than 1,199 pixels"):
        open_image(tmp_path / "a.png")


def _with_damaged_metadata(path: Path) -> Path:
    """A picture of which Pillow warns."""
    Image.new("RGB", (8, 8), "red").save(path, exif=b"Exif\0\0II*\0\x08\0\0\0\x05\0\x12\x01")
    return path


@pytest.mark.filterwarnings("default")
def test_images_are_read_in_threads_without_a_change_of_the_filters_of_warnings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _with_damaged_metadata(tmp_path / "a.jpg")
    files, before = list_images(tmp_path) * 4, list(warnings.filters)
    monkeypatch.setattr(warnings, "catch_warnings", None)  # it would replace the filters of all threads
    assert [image.size for chunk in read_in_chunks(files, 1) for image in chunk] == [(8, 8)] * 4
    with ThreadPoolExecutor(4) as threads:
        assert {image.size for image in threads.map(open_image, [tmp_path / "a.jpg"] * 20)} == {(8, 8)}
    assert warnings.filters == before


def test_warnings_of_damaged_metadata_are_silent_where_a_build_reads_and_others_are_not(tmp_path: Path) -> None:
    path = _with_damaged_metadata(tmp_path / "a.jpg")
    with pytest.warns(UserWarning, match="Corrupt EXIF"):
        open_image(path)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        image_table(list_images(tmp_path), tmp_path)
        with images.without_metadata_warnings():
            for chunk in read_in_chunks(list_images(tmp_path), 1):
                warnings.warn(f"of a model, about {len(chunk)} image", stacklevel=1)
    assert [str(one.message) for one in seen] == ["of a model, about 1 image"]


@pytest.mark.parametrize("suffix", ["bmp", "gif", "jpg", "png", "tiff", "webp"])
def test_a_file_that_is_cut_short_anywhere_is_told_or_still_whole(tmp_path: Path, suffix: str) -> None:
    _save(tmp_path / f"whole.{suffix}", 0)
    whole, pixels = (tmp_path / f"whole.{suffix}").read_bytes(), open_image(tmp_path / f"whole.{suffix}")
    refused = 0
    for end in range(0, len(whole), 37):
        (tmp_path / f"cut.{suffix}").write_bytes(whole[:end])
        try:
            assert open_image(tmp_path / f"cut.{suffix}").tobytes() == pixels.tobytes()
        except UserError as error:
            refused += 1
            assert f"cut.{suffix} cannot be read as an image" in str(error)
            assert "Replace or remove it." in str(error)
    assert refused >= len(whole) // 37 // 2


def test_cmyk_is_read_in_its_colors(tmp_path: Path) -> None:
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / "red.jpg", quality=95)
    red, green, blue = _pixel(tmp_path / "red.jpg")
    assert red > 240
    assert max(green, blue) < 15


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_is_put_on_white_and_hides_its_color(tmp_path: Path, mode: str) -> None:
    image = Image.new("RGBA", (3, 1), (0, 0, 0, 0))
    image.putpixel((1, 0), (0, 0, 0, 255))
    image.putpixel((2, 0), (0, 0, 0, 128))
    if mode == "P":
        image = Image.new("P", (2, 1))  # color 0 is black, and transparent
        image.putpalette([0, 0, 0, 0, 0, 0])
        image.putpixel((1, 0), 1)
        image.save(tmp_path / "glass.png", transparency=0)
    else:
        image.convert(mode).save(tmp_path / "glass.png")
        assert _pixel(tmp_path / "glass.png", 2)[0] in range(126, 130)
    assert _pixel(tmp_path / "glass.png", 0) == (255, 255, 255)
    assert _pixel(tmp_path / "glass.png", 1) == (0, 0, 0)


def test_a_palette_is_read_in_its_colors(tmp_path: Path) -> None:
    image = Image.new("P", (1, 1), 1)
    image.putpalette([9, 9, 9, 40, 50, 60])
    image.save(tmp_path / "palette.png")
    assert _pixel(tmp_path / "palette.png") == (40, 50, 60)


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_gray_of_16_bits_keeps_its_shades(tmp_path: Path, suffix: str) -> None:
    Image.fromarray(np.array([[0, 256, 0x8000, 0xFFFF]], np.uint16)).save(tmp_path / f"deep.{suffix}")
    assert [_pixel(tmp_path / f"deep.{suffix}", x)[1] for x in range(4)] == [0, 1, 128, 255]


def test_gray_of_16_bits_with_a_transparent_shade_is_put_on_white(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 0x8000]], np.uint16)).save(tmp_path / "deep.png", transparency=0)
    assert [_pixel(tmp_path / "deep.png", x)[0] for x in range(2)] == [255, 128]


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_32_bits_per_pixel_are_refused_for_white_is_not_known(tmp_path: Path, dtype: type) -> None:
    Image.fromarray(np.array([[0, 1000]], dtype)).save(tmp_path / "heights.tiff")
    with pytest.raises(UserError, match=r"heights\.tiff has 32 bits per pixel.*8 or 16 bits"):
        open_image(tmp_path / "heights.tiff")


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tiff"])
def test_of_several_frames_the_first_is_read(tmp_path: Path, suffix: str) -> None:
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue", "green")]
    how = {"lossless": True} if suffix == "webp" else {}
    frames[0].save(tmp_path / f"moving.{suffix}", save_all=True, append_images=frames[1:], **how)
    assert _pixel(tmp_path / f"moving.{suffix}") == (255, 0, 0)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_is_applied(tmp_path: Path, orientation: int) -> None:
    shown = Image.fromarray(np.arange(24, dtype=np.uint8).reshape(4, 6) * 10).convert("RGB")
    back = {
        2: 0,
        3: 3,
        4: 1,
        5: 5,
        6: 2,
        7: 6,
        8: 4,
    }  # Pillow's numbers of the way from how it is shown to how it is stored
    stored = shown.transpose(Image.Transpose(back[orientation])) if orientation > 1 else shown
    exif = stored.getexif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "turned.png", exif=exif)
    assert open_image(tmp_path / "turned.png").tobytes() == shown.tobytes()


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif"])
def test_a_picture_is_turned_once_however_often_it_is_made_upright(tmp_path: Path, suffix: str) -> None:
    image = Image.new("RGB", (40, 20), "red")
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / f"turned.{suffix}", exif=exif)
    with Image.open(tmp_path / f"turned.{suffix}") as stored:
        once = upright(stored)
        assert once.size == (20, 40)
        assert upright(once) is once


def test_a_file_that_cannot_be_opened_is_not_called_damaged(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"absent\.png cannot be opened \(No such file or directory\)"):
        open_image(tmp_path / "absent.png")
    with pytest.raises(UserError, match=r"cannot be opened \(Is a directory\)"):
        open_image(tmp_path)


def test_a_picture_that_is_postscript_starts_no_other_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mark, ghostscript = tmp_path / "ran", tmp_path / "bin" / "gs"
    ghostscript.parent.mkdir()
    ghostscript.write_text(f"#!/bin/sh\necho x > {mark}\nexit 1\n")
    ghostscript.chmod(0o755)
    monkeypatch.setenv("PATH", f"{ghostscript.parent}{os.pathsep}{os.environ['PATH']}")
    page = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
    (tmp_path / "page.png").write_bytes(page)
    with pytest.raises(UserError, match=r"page\.png cannot be .* it is EPS, .* Convert it to PNG or remove it"):
        open_image(tmp_path / "page.png")
    assert not mark.exists()


Image.init()
MODES = ("RGB", "RGBA", "L", "P", "1", "I;16", "F")


def _written_as(kind: str) -> bytes | None:
    """A picture in one of Pillow's formats, in the first mode that it takes; None where it takes none.

    Not saved as a file: SPIDER would register that file's suffix as its own.
    """
    for mode in MODES:
        image = Image.new("RGB", (16, 16), "red").convert(mode) if mode != "I;16" else Image.new(mode, (16, 16))
        file = io.BytesIO()
        try:
            image.save(file, kind)
        except (OSError, ValueError, KeyError, TypeError):
            continue
        return file.getvalue()
    return None


WRITTEN = {kind: content for kind in sorted(Image.SAVE) if (content := _written_as(kind)) is not None}


@pytest.mark.parametrize("kind", sorted(set(WRITTEN) - set(FORMATS) - {"MPO"}))  # MPO: a JPEG with more behind it
def test_a_format_that_no_suffix_stands_for_is_refused_whole_or_damaged(tmp_path: Path, kind: str) -> None:
    whole = WRITTEN[kind]
    for content in (whole, whole[: len(whole) // 2], whole[:40] + bytes(200), whole[:9]):
        (tmp_path / "other.png").write_bytes(content)
        with pytest.raises(UserError, match=r"other\.png cannot be read as an image.*BMP, GIF, JPEG, PNG, TIFF, WEBP"):
            open_image(tmp_path / "other.png")


@pytest.mark.parametrize("kind", sorted({"AVIF", "BLP", "DDS", "EPS", "ICNS", "ICO", "JPEG2000"} & set(WRITTEN)))
def test_a_format_that_is_not_read_is_named(tmp_path: Path, kind: str) -> None:
    (tmp_path / "other.png").write_bytes(WRITTEN[kind])
    with pytest.raises(UserError, match=rf"it is {kind}, and only .* Convert it to PNG or remove it\."):
        open_image(tmp_path / "other.png")


def test_the_formats_are_those_of_the_suffixes() -> None:
    assert {Image.registered_extensions()[suffix] for suffix in SUFFIXES} == set(FORMATS)


@pytest.mark.parametrize("kind", [*FORMATS, "MPO"])
@pytest.mark.parametrize("suffix", sorted(SUFFIXES))
def test_a_picture_is_read_by_its_content_whatever_it_is_called(tmp_path: Path, kind: str, suffix: str) -> None:
    pictures = [Image.new("RGB", (16, 16), color) for color in ("red", "blue")]
    more = {"save_all": True, "append_images": pictures[1:]} if kind == "MPO" else {}
    pictures[0].save(tmp_path / f"red{suffix}", kind, **more)
    red, green, blue = _pixel(tmp_path / f"red{suffix}")
    assert red > 240 and max(green, blue) < 15


REPOSITORY = Path(__file__).parents[2]
SOURCES = [
    file
    for folder in ("latentlens_dag", "dashboards", "tests/benchmarks")
    for file in (REPOSITORY / folder).rglob("*.py")
]


def _opened_pictures(source: str) -> list[tuple[int, str | None]]:
    """Line and `formats` of every call of `PIL.Image.open`, by whatever name the module or the function goes."""
    tree = ast.parse(source)
    modules, functions = {"PIL.Image"}, set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module in ("PIL", "PIL.Image"):
            for alias in node.names:
                called = alias.asname or alias.name
                if (node.module, alias.name) == ("PIL", "Image"):
                    modules.add(called)
                elif (node.module, alias.name) == ("PIL.Image", "open"):
                    functions.add(called)
        elif isinstance(node, ast.Import):
            modules |= {alias.asname for alias in node.names if alias.name == "PIL.Image" and alias.asname}
    calls = functions | {f"{module}.open" for module in modules}
    return [
        (node.lineno, next((ast.unparse(word.value) for word in node.keywords if word.arg == "formats"), None))
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in calls
    ]


def test_every_call_that_opens_a_picture_names_the_formats() -> None:
    opened = [
        (str(file.relative_to(REPOSITORY)), *one) for file in SOURCES for one in _opened_pictures(file.read_text())
    ]
    assert {file for file, _, _ in opened} >= {
        f"latentlens_dag/{name}.py" for name in ("inputs/images", "figures/source_image", "figures/contact_sheet")
    }
    assert [one for one in opened if one[2] not in ("FORMATS", "images.FORMATS")] == []


@pytest.mark.parametrize(
    "source",
    [
        "from PIL import Image\nImage.open(a)",
        "from PIL import Image as Pillow\nPillow.open(a)",
        "import PIL.Image\nPIL.Image.open(a)",
        "import PIL.Image as P\nP.open(a)",
        "from PIL.Image import open as o\no(a)",
    ],
)
def test_a_call_is_found_by_any_name(source: str) -> None:
    assert _opened_pictures(source) == [(2, None)]
    assert _opened_pictures(source.replace("(a)", "(a, formats=FORMATS)")) == [(2, "FORMATS")]


def observed_names(folder: Path, memory: Path) -> pa.Table:
    return image_names(folder, file_hashes(folder, memory, hidden=True))


def test_thousands_of_images_are_opened_once_and_their_folders_listed_once_by_each_step(tmp_path: Path) -> None:
    folder, paths, batches = tmp_path / "pictures", Warehouse(tmp_path / "warehouse"), 20
    different = write_images(folder, 5_000, 40)
    memory = paths.observed("images.many.source")

    def opens(step: Callable[[], object]) -> tuple[int, int, int]:
        """Of images, at most of one image, and listings of folders."""
        with opened_files() as count:
            step()
        of_images = [number for file, number in count.items() if file.endswith(".png")]
        return sum(of_images), max(of_images, default=0), sum(count[str(path)] for path in [folder, *folder.iterdir()])

    assert opens(lambda: content_version(folder, memory, hidden=True)) == (5_000, 1, 41)
    assert opens(lambda: content_version(folder, memory, hidden=True)) == (0, 0, 41)
    # For the files, and for links to nothing.
    assert opens(lambda: write_parquet(observed_names(folder, memory), paths.image_names("many"))) == (0, 0, 2 * 41)
    assert opens(lambda: choose_batches(folder, paths, batches)) == (0, 0, 0)
    assert opens(lambda: write_batches(folder, paths, batches)) == (different, 1, 0)
    write_regions_file(pq.read_table(paths.image_names("many")), tmp_path / "regions.parquet")
    with opened_files() as count:
        assert write_regions(tmp_path / "regions.parquet", paths, batches) == 2 * different
    assert not any(file.endswith(".png") for file in count)


def test_names_are_those_of_hashing_every_file_whatever_is_remembered(tmp_path: Path) -> None:
    for seed in range(6):
        _save(tmp_path / "pictures" / f"{seed % 2}" / f"{seed % 4}_{seed}.png", seed % 5)
    (tmp_path / "pictures" / "notes.txt").write_text("no image")
    memory, whole = tmp_path / "memory.json", list_names(tmp_path / "pictures")
    by_id: dict[str, str] = {}
    for file in sorted((tmp_path / "pictures").rglob("*.png")):
        by_id.setdefault(hash_bytes(file.read_bytes()), file.relative_to(tmp_path / "pictures").as_posix())
    assert [tuple(row.values()) for row in whole.to_pylist()] == sorted(by_id.items())
    assert len(whole) == 5
    assert observed_names(tmp_path / "pictures", memory).equals(whole)
    assert observed_names(tmp_path / "pictures", memory).equals(whole)


@pytest.mark.parametrize("batches", [1, 3, 96])
def test_the_images_of_a_batch_are_those_whose_ids_fall_into_it(tmp_path: Path, batches: int) -> None:
    for seed in range(12):
        _save(tmp_path / f"{seed}.png", seed)
    names = list_names(tmp_path)
    for batch in range(batches):
        found = original_files(files_of_batch(names, batch, batches), tmp_path)
        assert found == batch_of_images(tmp_path, batch, batches)


def test_a_file_that_was_just_read_is_not_opened_again_until_it_changes(tmp_path: Path) -> None:
    _save(tmp_path / "a.png", 0)
    file = list_images(tmp_path)[0]
    with opened_files() as count:
        assert read_image(file).tobytes() == read_image(file).tobytes() == open_image(file.path).tobytes()
    assert count[str(file.path)] == 2  # one of them by `open_image`
    os.utime(file.path, ns=(0, 0))
    with opened_files() as count:
        read_image(file)
    assert count[str(file.path)] == 1
    _save(tmp_path / "a.png", 1)
    with pytest.raises(ChangedFileError, match="changed or removed"):
        read_image(file)
    file.path.unlink()
    with pytest.raises(ChangedFileError, match="changed or removed"):
        read_image(file)


def test_forgotten_files_are_opened_again_and_hold_no_memory(tmp_path: Path) -> None:
    _save(tmp_path / "a.png", 0)
    file = list_images(tmp_path)[0]
    images.forget_files()
    with opened_files() as count:
        first = read_image(file).tobytes()
        assert images._read_bytes.cache.currsize == file.path.stat().st_size
        images.forget_files()
        assert images._read_bytes.cache.currsize == 0
        assert read_image(file).tobytes() == first
    assert count[str(file.path)] == 2


def test_a_file_larger_than_all_that_is_kept_is_read_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images._read_bytes.cache, "_Cache__maxsize", 100)
    _save(tmp_path / "a.png", 7)
    file = list_images(tmp_path)[0]
    with opened_files() as count:
        assert [read_image(file).size for _ in range(2)] == [(40, 30)] * 2
    assert count[str(file.path)] == 2


@pytest.mark.parametrize("count", [0, 1, 3, 7])
def test_images_in_chunks_are_those_one_by_one_and_no_more_than_two_chunks_are_read_ahead(
    tmp_path: Path, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in range(count):
        _save(tmp_path / f"{seed}.png", seed)
    files, begun = list_images(tmp_path) if count else [], []
    real = images.read_image
    monkeypatch.setattr(images, "read_image", lambda file: begun.append(file) or real(file))
    found = []
    for number, chunk in enumerate(read_in_chunks(files, 3), 1):
        found += [image.tobytes() for image in chunk]
        assert len(chunk) <= 3
        assert 3 * (number - 1) < len(begun) <= 3 * (number + 1)
    assert found == [real(file).tobytes() for file in files]
    assert begun == files


def test_a_damaged_image_is_named_when_its_chunk_is_due(tmp_path: Path) -> None:
    for seed in range(4):
        _save(tmp_path / f"{seed}.png", seed)
    files = list_images(tmp_path)
    files[3].path.write_bytes(b"another")
    chunks = read_in_chunks(files, 2)
    assert len(next(chunks)) == 2
    with pytest.raises(ChangedFileError, match=files[3].path.name):
        next(chunks)


TURNED = (0x112, 3, 1, struct.pack("<HH", 6, 0))
"""The EXIF tag that turns a picture by a quarter."""


def _exif(*tags: tuple[int, int, int, bytes]) -> bytes:
    rows = [struct.pack("<HHI", number, kind, count) + value for number, kind, count, value in sorted(tags)]
    return b"Exif\0\0II*\0" + struct.pack("<IH", 8, len(rows)) + b"".join(rows) + struct.pack("<I", 0)


@pytest.mark.parametrize(
    "tag",
    [
        pytest.param((0x11A, 2, 4, b"72\0\0"), id="a resolution that is text"),
        pytest.param((0x8769, 4, 1, struct.pack("<I", 7)), id="more tags in the midst of others"),
        pytest.param((0x132, 99, 4, b"abcd"), id="a time of no type"),
        pytest.param((0x8825, 4, 1, struct.pack("<I", 2**31)), id="a place beyond the end"),
        pytest.param((0x131, 11, 1, struct.pack("<f", 1.5)), id="software that is a number"),
        pytest.param((0x111, 2, 4, b"abc\0"), id="strip offsets that are text"),
    ],
)
def test_a_photo_is_read_upright_whatever_else_its_exif_says(tmp_path: Path, tag: tuple[int, int, int, bytes]) -> None:
    Image.new("RGB", (20, 10)).save(tmp_path / "photo.jpg", "JPEG", exif=_exif(TURNED, tag))
    assert open_image(tmp_path / "photo.jpg").size == (10, 20)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("exif", [b"Exif\0\0no order", b"Exif\0\0II*\0", b"Exif\0\0MM\0*\xff\xff\xff\xff", b"x"])
def test_a_picture_whose_exif_is_none_is_read_as_it_lies(tmp_path: Path, kind: str, exif: bytes) -> None:
    Image.new("RGB", (20, 10)).save(tmp_path / "photo", kind, exif=exif)
    assert open_image(tmp_path / "photo").size == (20, 10)


@pytest.mark.parametrize("orientation", [*range(10), 65535])
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
def test_a_picture_is_turned_as_pillow_turns_it(tmp_path: Path, suffix: str, orientation: int) -> None:
    path = tmp_path / f"a.{suffix}"
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 20, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x112] = orientation
    image.save(path, exif=exif)
    with Image.open(path) as stored:
        expected = ImageOps.exif_transpose(stored).convert("RGB")
    assert np.array_equal(np.asarray(open_image(path)), np.asarray(expected))


@settings(deadline=None, max_examples=150)
@given(format_=st.sampled_from(FORMATS), place=st.floats(0, 1), damage=st.binary(max_size=12), cut=st.booleans())
def test_a_damaged_picture_of_any_format_is_read_or_refused_by_name(
    format_: str, place: float, damage: bytes, cut: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = io.BytesIO()
    Image.new("P", (9, 7)).convert("RGB").save(content, format_, exif=_exif(TURNED))
    whole = content.getvalue()
    start = round(place * len(whole))
    path = tmp_path_factory.mktemp("damaged") / "a.png"
    path.write_bytes(whole[:start] + damage + (b"" if cut else whole[start + len(damage) :]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            assert open_image(path).mode == "RGB"
        except UserError as error:
            assert str(error).startswith(str(path))


@pytest.mark.parametrize(
    "error", [RuntimeError("x"), NotImplementedError(), KeyError(1), MemoryError(), OverflowError()]
)
def test_whatever_pillow_raises_is_an_error_about_the_file(
    tmp_path: Path, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    _save(tmp_path / "a.png", 0)
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", fail)
    with pytest.raises(UserError, match=r"a\.png ") as refused:
        open_image(tmp_path / "a.png")
    assert refused.value.__cause__ is error  # which --debug shows


def test_what_is_left_out_of_a_folder_is_counted_with_the_reason(tmp_path: Path) -> None:
    folder = tmp_path / "pictures.d"
    _save(folder / "a.png", 0)
    _save(folder / "below" / "again.png", 0)
    _save(folder / ".hidden" / "b.png", 1)
    _save(tmp_path / "elsewhere" / "c.png", 2)
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    for name in ("a.heic", "b.HEIC", "notes.txt", "without", ".DS_Store", "README.md"):
        (folder / name).write_text(name)
    report = report_folder(folder, file_hashes(folder, tmp_path / "memory.json", hidden=True))
    assert report == ({".heic": 2, ".txt": 1, "": 1}, 1, 1, ["linked"])
    assert str(report) == (
        "Left out, since only .bmp, .gif, .jpeg, .jpg, .png, .tif, .tiff, .webp are read: 4 files (2 .heic, 1 without "
        "suffix, 1 .txt). Left out, since links to folders are not followed: 1, such as linked. Counted once, since "
        "their bytes are those of another image: 1. Read though hidden (a name that begins with a dot): 1."
    )


def test_of_a_folder_of_different_pictures_nothing_is_left_out(tmp_path: Path) -> None:
    for seed in range(3):
        _save(tmp_path / "some" / f"{seed}.png", seed)
    assert str(report_folder(tmp_path / "some", file_hashes(tmp_path / "some", tmp_path / "memory.json"))) == ""
