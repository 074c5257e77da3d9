"""A contact sheet as one PNG: scenes with the nearest word of each lens on every patch.

Rows are scenes, columns lenses. Every visual token with a box is labelled with its nearest neighbor, on a plate in the
color of the verdict. Boxes may be any list; no grid is assumed.

Note: the word is that of the *first* neighbor, the color is the verdict on *all* of them, so a wrong word can be on the
color of `concrete`: a farther neighbor earned it.

A word of a script for which this machine has no font is not drawn; its plate has the name of the script in parentheses,
and a line below the legend says so. It also says what U+FFFD on a plate is: no missing font, but what the answer holds.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from latentlens_dag.dataset.dataset import Dataset
from latentlens_dag.drawing import (
    INK,
    VERDICT_PLATES,
    Color,
    Font,
    draw_plate,
    drawable_text,
    fit_font,
    has_no_characters,
    load_font,
    make_sheet,
    missing_script,
)
from latentlens_dag.errors import UserError
from latentlens_dag.inputs.images import FORMATS
from latentlens_dag.models.layers import middle_layer
from latentlens_dag.schema import lens_order, lens_title
from latentlens_dag.storage.files import atomic_path
from latentlens_dag.text.words import whole_characters

_UNJUDGED, _FAINT = (120, 120, 120), (105, 105, 112)
_MARGIN, _GAP, _LEAST_FONT, _LEAST_NOTE = 28, 18, 11, 7
_PATCH = 64  # width of the median patch in the sheet, in pixels, for a word to fit
_BOX = ("x0", "y0", "x1", "y1")
_JUDGE = "regions"  # whose verdicts color the words


@dataclass(frozen=True)
class LensView:
    """One lens on one scene; both lists are parallel to the scene's boxes."""

    words: Sequence[str | None]
    """The nearest word of each token; null leaves the patch bare."""
    verdicts: Sequence[str | None]
    """concrete, abstract, global, none, or null if not judged."""


def draw_scenes(
    images: Sequence[Image.Image],
    boxes: Sequence[npt.NDArray[np.float32]],
    lenses: Mapping[str, Sequence[LensView]],
    *,
    title: str,
) -> Image.Image:
    """Draw scenes with the words of several lenses side by side.

    Args:
        images: the scenes, one row each.
        boxes: per scene [T, 4] x0, y0, x1, y1 in pixels of the scene.
        lenses: per lens, in the order of the columns, a view of every scene.
        title: first line of the sheet, such as study and visual layer.
    """
    columns = [
        [_scene(image, box, view) for image, box, view in zip(images, boxes, views, strict=True)]
        for views in lenses.values()
    ]
    words = {word for views in lenses.values() for view in views for word in view.words if word}
    return _sheet(columns, [lens_title(lens) for lens in lenses], title, _missing_note(words))


def thumbnail_loader(dataset: Dataset) -> Callable[[str, str], Image.Image]:
    """A `load_image` that needs no original images: thumbnails, enlarged to the original size."""

    def load(image_id: str, file_name: str) -> Image.Image:
        query = "SELECT thumbnail, width, height FROM images WHERE image_id = $image_id"
        ((thumbnail, width, height),) = dataset.sql(query, image_id=image_id).fetchall()
        try:
            image = Image.open(io.BytesIO(thumbnail), formats=FORMATS).convert("RGB")
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise UserError(
                f"The thumbnail of {file_name} (image_id {image_id}) cannot be read as a picture: the table `images` "
                "is damaged. Build the study, or pull its release, again."
            ) from error
        return image.resize((width, height), Image.Resampling.LANCZOS)

    return load


def write_sheet(
    dataset: Dataset,
    study: str,
    load_image: Callable[[str, str], Image.Image],
    path: Path,
    *,
    layer: int | None = None,
    scenes: int = 2,
) -> int:
    """Write the sheet of `draw_study` as PNG, atomically; return its visual layer."""
    sheet, drawn = draw_study(dataset, study, load_image, layer=layer, scenes=scenes)
    with atomic_path(path) as temporary:
        sheet.save(temporary, format="PNG", optimize=True)
    return drawn


def draw_study(
    dataset: Dataset,
    study: str,
    load_image: Callable[[str, str], Image.Image],
    *,
    layer: int | None = None,
    scenes: int = 2,
    only: Sequence[str] | None = None,
) -> tuple[Image.Image, int]:
    """Draw typical scenes of a study: those whose LatentLens share is nearest to the median of all scenes.

    Args:
        dataset: holds the study's tables.
        study: its name.
        load_image: loads the image of (image_id, file_name) in its original size.
        layer: visual layer; by default the middle one, which favors no lens.
        scenes: number of scenes.
        only: ids of the images to choose from; all by default.

    Returns:
        The sheet and its visual layer.

    Raises:
        UserError: if the study reads texts, has no neighbors at that layer, or its visual tokens have no boxes.
    """
    _check_has_images(dataset, study)
    layer = _middle_layer(dataset, study) if layer is None else layer
    among = None if only is None else list(only)
    chosen = dataset.sql(_TYPICAL, study=study, layer=layer, judge=_JUDGE, scenes=scenes, only=among).fetchall()
    if not chosen:
        raise UserError(
            f"Study {study!r} has no answers at visual layer {layer}. `latentlens-dag query studies` lists "
            "studies and their layers."
        )
    lenses = _lenses(dataset, study, layer)
    found = [_read_scene(dataset, study, layer, lenses, *image) for image in chosen]
    images = [load_image(image_id, file_name) for image_id, file_name in chosen]
    views = {lens: [scene.views[lens] for scene in found] for lens in lenses}
    title = f"{study}, visual layer {layer}: the nearest answer of every visual token"
    return draw_scenes(images, [scene.boxes for scene in found], views, title=title), layer


class _Scene(NamedTuple):
    """The tokens of one image that have a box."""

    boxes: npt.NDArray[np.float32]
    views: dict[str, LensView]
    """By lens."""


def _read_scene(
    dataset: Dataset, study: str, layer: int, lenses: Sequence[str], image_id: str, file_name: str
) -> _Scene:
    rows = dataset.collect(_ANSWERS, study=study, layer=layer, judge=_JUDGE, image_id=image_id)
    tokens = rows.select("token_index", *_BOX).unique(maintain_order=True)
    if tokens.is_empty():
        raise UserError(
            f"Study {study!r} cannot be drawn: no visual token of {file_name} has a place in it. Those of families "
            "without a region map are `unmapped`; their answers are in the table neighbors."
        )
    views = {}
    for lens in lenses:
        answers = tokens.join(rows.filter(lens=lens), on="token_index", how="left", maintain_order="left")
        views[lens] = LensView(answers["word"].to_list(), answers["verdict"].to_list())
    return _Scene(tokens.select(_BOX).to_numpy().astype(np.float32), views)


# Scenes by how far their share of concrete words is from the median scene's; without judgements by id.
_TYPICAL = """
WITH shares AS (
    SELECT image_id, avg((verdict = 'concrete')::INTEGER) FILTER (lens = 'latentlens' AND judge = $judge) AS share
    FROM neighbors LEFT JOIN judgements USING (study, image_id, token_index, visual_layer, lens)
    WHERE study = $study AND visual_layer = CAST($layer AS INTEGER) AND rank = 1
        AND ($only IS NULL OR list_contains($only, image_id))
    GROUP BY image_id
)
SELECT image_id, coalesce(file_name, image_id)
FROM shares LEFT JOIN images USING (image_id)
ORDER BY abs(share - (SELECT median(share) FROM shares)) NULLS LAST, image_id
LIMIT CAST($scenes AS INTEGER)
"""
# Only the first view by name (`global` before `tile`): boxes of several views would overlap. Padding is not in a scene.
_ANSWERS = """
SELECT token_index, x0, y0, x1, y1, lens, word, verdict
FROM visual_tokens
JOIN neighbors USING (study, image_id, token_index)
LEFT JOIN (FROM judgements WHERE judge = $judge) USING (study, image_id, token_index, visual_layer, lens)
WHERE study = $study AND visual_layer = CAST($layer AS INTEGER) AND image_id = $image_id AND rank = 1 AND x0 IS NOT NULL
    AND view = (
        SELECT min(view)
        FROM visual_tokens
        WHERE study = $study AND image_id = $image_id AND x0 IS NOT NULL AND view <> 'padding'
    )
ORDER BY token_index
"""


def _check_has_images(dataset: Dataset, study: str) -> None:
    query = "SELECT 1 FROM text_tokens WHERE study = $study LIMIT 1"
    if dataset.sql(query, study=study).fetchall():
        raise UserError(
            f"Study {study!r} cannot be drawn: it reads texts, which are no pictures. `latentlens-dag query text "
            f"--param study={study}` shows its tokens, each with its neighbors."
        )


def _middle_layer(dataset: Dataset, study: str) -> int:
    query = "SELECT DISTINCT visual_layer FROM neighbors WHERE study = $study ORDER BY visual_layer"
    layers = [layer for (layer,) in dataset.sql(query, study=study).fetchall()]
    if not layers:
        raise UserError(f"Study {study!r} has no answers. `latentlens-dag query studies` lists what there is.")
    return middle_layer(layers)


def _lenses(dataset: Dataset, study: str, layer: int) -> list[str]:
    query = "SELECT DISTINCT lens FROM neighbors WHERE study = $study AND visual_layer = CAST($layer AS INTEGER)"
    found = {lens for (lens,) in dataset.sql(query, study=study, layer=layer).fetchall()}
    return sorted(found, key=lens_order)


def _scene(image: Image.Image, boxes: npt.NDArray[np.float32], view: LensView) -> Image.Image:
    """The scene, enlarged, with a word on every patch."""
    scale = _PATCH / float(np.median(boxes[:, 2] - boxes[:, 0])) if len(boxes) else 1.0
    scaled = np.asarray(boxes, np.float64).reshape(-1, 4) * scale
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    scene = image.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    layer = Image.new("RGBA", size, (0, 0, 0, 0))
    draw = ImageDraw.Draw(layer)
    for box in scaled:
        draw.rectangle([box[0], box[1], box[2] - 1, box[3] - 1], outline=(255, 255, 255, 56))
    for box, word, verdict in zip(scaled, view.words, view.verdicts, strict=True):
        if word:
            _label(draw, (box[0], box[1], box[2], box[3]), word, VERDICT_PLATES.get(verdict or "", _UNJUDGED))
    return Image.alpha_composite(scene.convert("RGBA"), layer).convert("RGB")


def _label(draw: ImageDraw.ImageDraw, box: tuple[float, float, float, float], word: str, color: Color) -> None:
    """The word in the middle of the box on a plate as wide as the box, however short the word."""
    x0, y0, x1, y1 = box
    text, font = _fit_word(word, x1 - x0 - 6, round((y1 - y0) * 0.25))
    middle, half = (y0 + y1) / 2, (y1 - y0) * 0.19
    draw_plate(draw, (x0 + 1.5, middle - half, x1 - 1.5, middle + half), text, font, (*color, 222), half / 2)


def _fit_word(word: str, width: float, size: int) -> tuple[str, Font]:
    """The word in the largest font up to `size` that fits, cut short where even the smallest does not."""
    word = drawable_text(word)
    font = fit_font(word, width, max(size, _LEAST_FONT), _LEAST_FONT)
    if font.getlength(word) <= width:
        return word, font
    characters = whole_characters(word)
    while len(characters) > 1 and font.getlength("".join(characters) + "..") > width:
        characters.pop()
    return "".join(characters) + "..", font


def _missing_note(words: Iterable[str]) -> str:
    """What to say about the words that cannot be drawn as they are; empty where all can be."""
    words = list(words)
    scripts = sorted({script for word in words if (script := missing_script(word)) is not None})
    notes = []
    if scripts:
        notes.append(
            f"In ( ): the script of a word for which no font is installed here ({', '.join(scripts)}). A font such as "
            "Noto Sans of that script helps."
        )
    if any(map(has_no_characters, words)):
        sign = drawable_text("\ufffd")
        notes.append(f"{sign}: an answer that is no character (a part of one, or a control code); no font is missing.")
    return " ".join(notes)


def _sheet(columns: list[list[Image.Image]], titles: list[str], title: str, note: str = "") -> Image.Image:
    """The scenes in a grid below title, legend, note and column titles."""
    unit = max(18, sum(max(scene.width for scene in column) for column in columns) // 70)
    top = _MARGIN + round(unit * (5.8 if note else 4.6))
    sheet, lefts = make_sheet(columns, _MARGIN, _GAP, top)
    draw = ImageDraw.Draw(sheet)
    draw.text((_MARGIN, _MARGIN), title, font=load_font(unit), fill=INK, anchor="lt")
    _legend(draw, _MARGIN + round(unit * 1.7), round(unit * 0.72))
    if note:
        font = fit_font(note, sheet.width - 2 * _MARGIN, round(unit * 0.72), _LEAST_NOTE)
        draw.text((_MARGIN, _MARGIN + round(unit * 2.9)), note, font=font, fill=_FAINT, anchor="lt")
    for name, left, column in zip(titles, lefts, columns, strict=True):
        font = fit_font(name, max(scene.width for scene in column), round(unit * 0.9), _LEAST_NOTE)
        draw.text((left, top - round(unit * 0.45)), name, font=font, fill=INK, anchor="ls")
    return sheet


def _legend(draw: ImageDraw.ImageDraw, y: int, size: int) -> None:
    x: float = _MARGIN
    font = load_font(size)
    for verdict, color in VERDICT_PLATES.items():
        draw.rounded_rectangle([x, y, x + size * 1.6, y + size], radius=size / 4, fill=color)
        draw.text((x + size * 2, y + size / 2), verdict, font=font, fill=INK, anchor="lm")
        x += size * 3.4 + draw.textlength(verdict, font=font)
    note = "word: first answer; color: verdict on all answers of that token"
    draw.text((x, y + size / 2), note, font=font, fill=_FAINT, anchor="lm")
