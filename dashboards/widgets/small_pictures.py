"""Small pictures to choose from: the gallery, examples, and where a word lights up."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import streamlit as st

from latentlens_dag.browse.browser_data import BrowserData, StudyFacts, Thumbnail
from latentlens_dag.text.display import clip

_FOLDER = Path(__file__).parent
_component = st.components.v2.component(
    "latentlens_small_pictures",
    html='<div class="tiles"></div>',
    css=(_FOLDER / "small_pictures.css").read_text(encoding="utf-8"),
    js="".join((_FOLDER / name).read_text(encoding="utf-8") for name in ("keys.js", "small_pictures.js")),
)
Boxes = Sequence[Sequence[float]]


class Entry(NamedTuple):
    """An image, or text, of a study in a row of small pictures."""

    image_id: str
    note: str
    """The line below it."""
    boxes: Boxes | None = None
    """Boxes to light up, in pixels of the original; the rest of the picture is darkened."""


def tile(picture: Thumbnail, note: str, boxes: Boxes | None = None, text: str | None = None) -> dict[str, Any]:
    """One picture, or text, as the component draws it; arguments as in `Entry`."""
    return {
        "id": picture.image_id,
        "picture": picture.source,
        "width": picture.width,
        "height": picture.height,
        "title": clip(picture.file_name, 60),
        "note": clip(note, 120),
        "boxes": None if boxes is None else [[round(side, 1) for side in box] for box in boxes],
        "text": None if text is None else clip(text, 240),
    }


def study_tiles(
    data: BrowserData, study: StudyFacts, entries: Sequence[Entry], pictures: Mapping[str, Thumbnail] | None = None
) -> list[dict[str, Any]]:
    """A tile for each entry, by default with the study's own pictures; a missing image has its id as its name."""
    ids = tuple(dict.fromkeys(entry.image_id for entry in entries))
    pictures = data.thumbnails(study.name, ids) if pictures is None else pictures
    texts = data.texts(study.name, ids) if study.of_texts else {}
    blanks = {one: Thumbnail(one, "" if one in texts else one, 1, 1, "") for one in ids}
    return [tile(pictures.get(one, blanks[one]), note, boxes, texts.get(one)) for one, note, boxes in entries]


def small_pictures(items: list[dict[str, Any]], key: str, opened: Callable[[str], None], least: str = "9.5rem") -> None:
    """Draw tiles of at least the width `least`; `opened` gets the id of the one that a person chooses."""

    def changed() -> None:
        image = st.session_state[key].opened
        if isinstance(image, str):
            opened(image)

    version = blake2b(repr(items).encode(), digest_size=8).hexdigest()
    # In a list: Streamlit compares a dict with the types of pandas, whose import takes half a second and 40 MB.
    _component(key=key, data=[{"items": items, "version": version, "least": least}], on_opened_change=changed)
