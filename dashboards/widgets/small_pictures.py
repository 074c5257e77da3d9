"""Small pictures to choose from: the gallery, and where a word lights up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import streamlit as st

from latentlens_dag.browse.browser_data import Thumbnail
from latentlens_dag.text.display import clip

_FOLDER = Path(__file__).parent
_component = st.components.v2.component(
    "latentlens_small_pictures",
    html='<div class="tiles"></div>',
    css=(_FOLDER / "small_pictures.css").read_text(encoding="utf-8"),
    js="".join((_FOLDER / name).read_text(encoding="utf-8") for name in ("keys.js", "small_pictures.js")),
)


def tile(
    picture: Thumbnail, note: str, boxes: Sequence[Sequence[float]] | None = None, text: str | None = None
) -> dict[str, Any]:
    """One picture with a line below it; with `boxes` (pixels of the original), the rest of it is dark."""
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


def small_pictures(items: list[dict[str, Any]], key: str, opened: Callable[[str], None], least: str = "9.5rem") -> None:
    """Draw them; `opened` is called with an image's id when a person chooses it; `least` is a tile's least width."""

    def changed() -> None:
        image = st.session_state[key].opened
        if isinstance(image, str):
            opened(image)

    version = blake2b(repr(items).encode(), digest_size=8).hexdigest()
    # In a list: what is in a dict, Streamlit compares with pandas' types, whose import takes half a second and 40 MB.
    _component(key=key, data=[{"items": items, "version": version, "least": least}], on_opened_change=changed)
