"""One image as a page shows it: which of its tokens, through which lens, under which overlay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from latentlens_dag.browse.browser_data import BrowserData, StudyFacts, Thumbnail, parse_words
from latentlens_dag.browse.layout import TokenView, token_views
from latentlens_dag.text.display import clip
from widgets import permalink
from widgets.patch_grid import Row, grid_data

_MANY_VIEWS = 4  # from then on a list, not buttons


def spotlight_hits(data: BrowserData, study: str, image: str, lens: str, layer: int, typed: str) -> frozenset[int]:
    """The tokens of an image that have one of the typed words among their answers."""
    words = parse_words(typed)
    if words is None:
        return frozenset()
    images = data.collect(study, "where_words", words=words, lens=lens, layer=layer)
    hits = images.filter(images["image_id"] == image)["token_indices"].to_list()
    return frozenset(hits[0] if hits else ())


def middle_token(rows: Sequence[Row]) -> int | None:
    """The token in the middle of those that have a box; the first one if none has."""
    placed = [row for row in rows if row["x0"] is not None]
    if not placed:
        return rows[0]["token_index"] if rows else None
    across, down = (sum(row[a] + row[b] for row in placed) / len(placed) for a, b in (("x0", "x1"), ("y0", "y1")))
    middle = min(placed, key=lambda row: abs(row["x0"] + row["x1"] - across) + abs(row["y0"] + row["y1"] - down))
    return int(middle["token_index"])


def choose_view(
    rows: Sequence[Row], token: int | None, letter: str = "", suffix: str = "", dropdown: bool = False
) -> TokenView | None:
    """The view of an image that the address names, else that of the token; asks if the image has several.

    `letter` and `suffix` tell the sides of a comparison apart, for people and in the address.
    """
    views = token_views(rows)
    if len(views) < 2:
        return views[0] if views else None
    names = [view.name for view in views]
    default = next((view.name for view in views if token in view.tokens), names[0])
    many = dropdown or len(views) > _MANY_VIEWS
    width = 130 if many else None
    name = permalink.choice(f"View {letter}".strip(), f"view{suffix}", names, default, dropdown=many, width=width)
    return views[names.index(name)]


@dataclass(frozen=True)
class ImageState:
    """One image as the address says to show it."""

    study: StudyFacts
    image: str
    """Its id."""
    lens: str
    layer: int
    rows: Sequence[Row]
    """All its tokens (`patches.sql`)."""
    view: TokenView | None
    """The tokens to draw on it; None if no token has a box."""
    token: int | None
    """The chosen token; None where a comparison has none on this side."""
    overlay: str = "none"
    typed: str = ""
    """The words of the spotlight, as a person typed them."""

    @property
    def row(self) -> Row:
        """The row of the chosen token."""
        return next(row for row in self.rows if row["token_index"] == self.token)

    def answers(self, data: BrowserData) -> list[dict[str, Any]]:
        """All answers for the chosen token, of every lens and layer (`token.sql`)."""
        if self.token is None:
            return []
        return data.collect(self.study.name, "token", image_id=self.image, token_index=self.token).to_dicts()

    def nearest(self, data: BrowserData) -> list[dict[str, Any]]:
        """The answers of this lens at this layer, nearest first, once each whatever the number of judges."""
        rows = [row for row in self.answers(data) if (row["lens"], row["visual_layer"]) == (self.lens, self.layer)]
        return list({row["rank"]: row for row in rows}.values())

    def thumbnail(self, data: BrowserData) -> Thumbnail:
        """The image; without pixels if the study's image set is gone."""
        return data.thumbnails(self.study.name, (self.image,)).get(self.image) or self.blank()

    def blank(self) -> Thumbnail:
        """A picture without pixels, as large as the boxes of the tokens reach."""
        width, height = (max((row[side] or 0 for row in self.rows), default=1) or 1 for side in ("x1", "y1"))
        return Thumbnail(self.image, self.image, int(width), int(height), "")

    def grid(self, data: BrowserData, picture: Thumbnail | None = None, side: str = "") -> dict[str, Any]:
        """What the patch grid draws, of this picture or of another copy of it; `side` names it in a comparison."""
        study, hits = self.study.name, frozenset[int]()
        if self.overlay == "spotlight":
            hits = spotlight_hits(data, study, self.image, self.lens, self.layer, self.typed)
        what = "Tokens" if self.study.of_texts else "Patches"
        name = f"Side {side}: {what.lower()}" if side else what
        return grid_data(
            picture or self.thumbnail(data),
            self.rows,
            self.view.tokens if self.view else (),
            self.overlay,
            self.token,
            f"{name} of {clip(self.title(data), 60)}; the arrow keys move among them",
            layers=data.contextual_layers(study),
            texts=data.token_texts(study, self.image) if self.study.of_texts else None,
            hits=hits,
            words=self.typed if parse_words(self.typed) else "",
        )

    def title(self, data: BrowserData) -> str:
        """The name of the file, or the text."""
        if self.study.of_texts:
            return data.texts(self.study.name, (self.image,)).get(self.image, self.image)
        return self.thumbnail(data).file_name

    def position(self, data: BrowserData) -> str:
        """Where the chosen token lies, in words; of a text, its characters."""
        if self.study.of_texts and self.token is not None:
            return "“" + data.token_texts(self.study.name, self.image).get(self.token, "").strip() + "”"
        return position(self.row)


def position(row: Row) -> str:
    """Where a token lies, in words."""
    if row["x0"] is None:
        return str(row["view"])
    return f"row {row['row'] + 1}, column {row['col'] + 1}" + (", padding" if row["view"] == "padding" else "")
