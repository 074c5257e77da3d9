"""What is seen of one image: which of its tokens, through which lens, under which overlay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from latentlens_dag.browse.browser_data import BrowserData, StudyFacts, Thumbnail, parse_words
from latentlens_dag.browse.layout import TokenView
from latentlens_dag.text.display import clip
from widgets.patch_grid import grid_data

Row = Mapping[str, Any]


def hits_of(data: BrowserData, study: str, image: str, lens: str, layer: int, typed: str) -> frozenset[int]:
    """The tokens of an image that have one of the typed words among their answers."""
    words = parse_words(typed)
    if words is None:
        return frozenset()
    found = data.ask(study, "where_words", words=words, lens=lens, layer=layer)
    hits = found.filter(found["image_id"] == image)["token_indices"].to_list()
    return frozenset(hits[0] if hits else ())


@dataclass(frozen=True)
class Shown:
    """One image as the address says that it is looked at."""

    study: StudyFacts
    image: str
    """Its id."""
    lens: str
    layer: int
    overlay: str
    typed: str
    """The words of the spotlight, as they were typed."""
    rows: Sequence[Row]
    """All its tokens (`patches.sql`)."""
    view: TokenView | None
    """The tokens that are drawn; None where none has a place."""
    views: int
    """How many views there are."""
    token: int
    """The chosen one."""

    @property
    def tokens(self) -> tuple[int, ...]:
        """The indices of those that are drawn."""
        return self.view.tokens if self.view else ()

    @property
    def row(self) -> Row:
        """The chosen token."""
        return next(row for row in self.rows if row["token_index"] == self.token)

    def picture(self, data: BrowserData) -> Thumbnail:
        """The image; without pixels, where the study's image set has gone."""
        found = data.pictures(self.study.name, (self.image,)).get(self.image)
        size = [max((row[side] or 0 for row in self.rows), default=1) or 1 for side in ("x1", "y1")]
        return found or Thumbnail(self.image, self.image, int(size[0]), int(size[1]), "")

    def drawn(self, data: BrowserData) -> dict[str, Any]:
        """What the patch grid draws."""
        picture, study = self.picture(data), self.study
        more: dict[str, Any] = {"layers": data.contextual_layers(study.name)}
        if study.of_texts:
            more |= {"labels": data.token_texts(study.name, self.image), "flowing": True}
        if self.overlay == "spotlight" and parse_words(self.typed):
            hits = hits_of(data, study.name, self.image, self.lens, self.layer, self.typed)
            more |= {"hits": hits, "spotlight": self.typed}
        what = "Tokens" if study.of_texts else "Patches"
        label = f"{what} of {clip(self.title(data), 60)}; the arrow keys move among them"
        return grid_data(picture, self.rows, self.tokens, self.overlay, self.token, label, **more)

    def title(self, data: BrowserData) -> str:
        """The file's name, or how the text begins."""
        if self.study.of_texts:
            return data.texts(self.study.name, (self.image,)).get(self.image, self.image)
        return self.picture(data).file_name

    def place(self, data: BrowserData) -> str:
        """Where the chosen token lies, in words; of a text, what it is."""
        row = self.row
        if self.study.of_texts:
            return "“" + data.token_texts(self.study.name, self.image).get(self.token, "").strip() + "”"
        return f"row {row['row'] + 1}, column {row['col'] + 1}" if row["x0"] is not None else str(row["view"])
