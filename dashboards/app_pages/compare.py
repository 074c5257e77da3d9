"""Compare: two layers, lenses, studies or releases on one image, with linked clicks; where do they disagree most."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import streamlit as st
from widgets import patch_grid, permalink, small_pictures, token_html
from widgets.charts import lines
from widgets.comparison import chosen_side, chosen_view, shelf, with_disagreement
from widgets.labels import counted, lens_name, percent, plain
from widgets.sources import library

from latentlens_dag.browse.browser_data import Thumbnail
from latentlens_dag.browse.disagreement import PatchDisagreement, Side, StudyRegistry
from latentlens_dag.browse.layout import regions_in_box
from latentlens_dag.errors import UserError
from latentlens_dag.text.display import clip

PER_PAGE = 24
MOST_PATCHES = 12
ORDERS = ("most apart first", "most alike first")
EXPLORE = Path(__file__).parent / "explore.py"
OVERLAYS = ("disagreement", *(overlay for overlay in patch_grid.OVERLAYS if overlay != "spotlight"))
NAMES = {**patch_grid.OVERLAY_NAMES, "disagreement": "Disagreement"}
MEASURE = (
    "Disagreement: of the words among the answers of either side, the share that only one of them has "
    "(1 - words of both / words of either; 0 % says the same words, 100 % no word in common)."
)


class Drawn(NamedTuple):
    """What is drawn of one side of an image."""

    side: Side
    letter: str
    suffix: str
    """Of its names in the address."""
    rows: list[dict[str, Any]]
    """Of `patches.sql`."""
    token: int | None
    apart: dict[int, PatchDisagreement]
    """How far it is from the other side, by token."""


@st.fragment
def compare_page(books: StudyRegistry) -> None:
    """Two sides, and what they say of all images or of one."""
    try:
        left, right = st.columns(2, gap="medium")
        with left:
            one = chosen_side(books, "A", "1", next(iter(books.studies)), 0)
        with right:
            elsewhere = [label for label, of in books.studies.items() if of.library is not one.of.library]
            alike = [label for label in elsewhere if books.studies[label].facts.name == one.of.facts.name]
            study = (alike or elsewhere or [one.of.label])[0]
            other = chosen_side(books, "B", "2", study, 0 if elsewhere else 1)
        shared = books.shared_images(one.of, other.of)
        image = permalink.here("image")
        if not shared:
            st.warning(
                f"{plain(one.of.label)} and {plain(other.of.label)} have no image in common, so there is nothing to "
                "compare. Images are told apart by their content: choose studies of the same pictures."
            )
        elif image not in shared:
            if image is not None:
                st.warning("One of the two sides has no such image; these are in both.")
            gallery(books, one, other)
        else:
            image_view(books, one, other, image)
    except UserError as error:  # reruns of a fragment do not pass through app.py
        st.error(plain(str(error)))


def answers_compared(books: StudyRegistry, one: Side, other: Side) -> int:
    """Ask how many answers of a patch are compared."""
    most = min(books.top_k(one.of), books.top_k(other.of))
    if most <= 1:
        return 1
    return permalink.choice("Answers compared", "top", range(1, most + 1), most, wide=True, width=130)


def gallery(books: StudyRegistry, one: Side, other: Side) -> None:
    """All images that both have, ranked."""
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        order = permalink.choice("Order", "order", ORDERS, ORDERS[0], wide=True, width=170)
        top = answers_compared(books, one, other)
    found = books.by_image(one, other, top)
    if found.is_empty():
        st.info("No patch has answers on both sides. Try another layer or lens, or finish the build.")
        return
    if order != ORDERS[0]:
        found = found.reverse()
    patches, kind = int(found["patches"].sum()), "text" if one.of.facts.of_texts else "image"
    mean = float((found["disagreement"] * found["patches"]).sum()) / patches
    pages = -(-len(found) // PER_PAGE)
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(f"{counted(len(found), kind)}, mean disagreement **{percent(mean)}** over {patches:,} patches")
        page = permalink.page(pages)
    rows = found[(page - 1) * PER_PAGE : page * PER_PAGE].to_dicts()
    ids = tuple(row["image_id"] for row in rows)
    pictures, texts = pictures_of(one, other, ids), texts_of(one, ids)
    tiles = [
        small_pictures.tile(
            pictures.get(row["image_id"]) or Thumbnail(row["image_id"], row["image_id"], 1, 1, ""),
            f"{percent(row['disagreement'])} apart; {percent(row['apart'])} of patches entirely",
            text=texts.get(row["image_id"]),
        )
        for row in rows
    ]
    small_pictures.small_pictures(tiles, "apart", lambda chosen: permalink.go(image=chosen, token1=None, token2=None))
    by_layer(books, one, other, top, None)
    st.caption(MEASURE)


def pictures_of(one: Side, other: Side, ids: tuple[str, ...]) -> dict[str, Thumbnail]:
    """The pictures of either side; those that have pixels first."""
    mine, theirs = (side.of.library.pictures(side.study, ids) for side in (one, other))
    return {**theirs, **{image: picture for image, picture in mine.items() if picture.source or image not in theirs}}


def texts_of(one: Side, ids: tuple[str, ...]) -> dict[str, str]:
    """The texts, of a study of texts."""
    return one.of.library.texts(one.study, ids) if one.of.facts.of_texts else {}


def by_layer(books: StudyRegistry, one: Side, other: Side, top: int, image: str | None) -> None:
    """The curve of the disagreement over layers."""
    curve = books.by_layer(one, other, top, image)
    if len(curve) < 2:
        return
    same = (one.of, one.lens) == (other.of, other.lens)
    what = f"A at layer {one.layer} with B at every layer" if same else "both sides at the same layer"
    where = "here" if image else "in a sample"
    st.markdown(f"**Layer by layer**: mean disagreement {where}, {what}")
    lines(
        curve.with_columns(sides=pl.lit("A and B")),
        "layer",
        "disagreement",
        "sides",
        x_title="Visual layer",
        y_title="Disagreement",
        format=".0%",
    )


def image_view(books: StudyRegistry, one: Side, other: Side, image: str) -> None:
    """One image on both sides."""
    rows = [
        side.of.library.ask(side.study, "patches", image_id=image, lens=side.lens, layer=side.layer).to_dicts()
        for side in (one, other)
    ]
    token, other_token = chosen_tokens(books, one, other, image, *rows)
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        st.button("← All texts" if one.of.facts.of_texts else "← All images", on_click=_leave)
        overlay = permalink.choice(
            "Overlay", "overlay", OVERLAYS, "disagreement", shown=NAMES.__getitem__, wide=True, width=170
        )
        top = answers_compared(books, one, other)
        shown = [chosen_view(rows[0], token, "A", "1"), chosen_view(rows[1], other_token, "B", "2")]
    sides = [
        Drawn(one, "A", "1", rows[0], token, books.patches(one, other, image, top)),
        Drawn(other, "B", "2", rows[1], other_token, books.patches(other, one, image, top)),
    ]
    picture = pictures_of(one, other, (image,)).get(image) or _blank(image, rows[0])
    st.html(f"<h1>{token_html.safe(picture.file_name, 80)}</h1>{said_of_the_patch(sides[0], image)}")
    for column, drawn, view in zip(st.columns(2, gap="medium"), sides, shown, strict=True):
        with column:
            draw_side(drawn, picture, view.tokens if view else (), overlay)
            draw_neighbors(drawn, image)
    left, right = st.columns(2, gap="medium")
    with left:
        most_apart(sides[0])
    with right:
        by_layer(books, one, other, top, image)
    st.caption(MEASURE)


def _leave() -> None:
    permalink.go(image=None, token1=None, token2=None, view1=None, view2=None)


def chosen_tokens(
    books: StudyRegistry, one: Side, other: Side, image: str, rows: list[dict[str, Any]], others: list[dict[str, Any]]
) -> tuple[int | None, int | None]:
    """The tokens that the address names; where it names that of one side only, the linked one of the other side."""
    known = [{row["token_index"] for row in side} for side in (rows, others)]
    named = [permalink.number_here(name) for name in ("token1", "token2")]
    token, other_token = (number if number in tokens else None for number, tokens in zip(named, known, strict=True))
    if token is None and other_token is None:
        token = _central(rows)
    if token is None and other_token is not None:
        token = books.links(other.of, one.of, image).get(other_token)
    elif other_token is None and token is not None:
        other_token = books.links(one.of, other.of, image).get(token)
    return token, other_token


def _central(rows: list[dict[str, Any]]) -> int | None:
    placed = [row for row in rows if row["x0"] is not None]
    if not placed:
        return rows[0]["token_index"] if rows else None
    across, down = (sum(row[a] + row[b] for row in placed) / len(placed) for a, b in (("x0", "x1"), ("y0", "y1")))
    middle = min(placed, key=lambda row: abs(row["x0"] + row["x1"] - across) + abs(row["y0"] + row["y1"] - down))
    return int(middle["token_index"])


def _blank(image: str, rows: list[dict[str, Any]]) -> Thumbnail:
    size = [max((row[side] or 0 for row in rows), default=1) or 1 for side in ("x1", "y1")]
    return Thumbnail(image, image, int(size[0]), int(size[1]), "")


def draw_side(drawn: Drawn, picture: Thumbnail, shown: tuple[int, ...], overlay: str) -> None:
    """The picture with the patches of one side; a click there chooses the patch of both."""
    library, study = drawn.side.of.library, drawn.side.study
    more: dict[str, Any] = {"layers": library.contextual_layers(study)}
    if drawn.side.of.facts.of_texts:
        more |= {"labels": library.token_texts(study, picture.image_id), "flowing": True}
    label = f"Side {drawn.letter}: patches of {clip(picture.file_name, 60)}; the arrow keys move from patch to patch"
    plain = "none" if overlay == "disagreement" else overlay
    grid = patch_grid.grid_data(picture, drawn.rows, shown, plain, drawn.token, label, **more)
    if overlay == "disagreement":
        grid = with_disagreement(grid, drawn.apart)
    theirs = {"1": "2", "2": "1"}[drawn.suffix]
    others = {f"token{theirs}": None, f"view{theirs}": None}  # the other side follows
    patch_grid.patch_grid(
        grid, f"grid-{drawn.letter}", lambda index: permalink.go(**{f"token{drawn.suffix}": index, **others})
    )


def answers_of(drawn: Drawn, image: str) -> list[dict[str, Any]]:
    """The answers of a side for the chosen patch, nearest first."""
    if drawn.token is None:
        return []
    side = drawn.side
    found = side.of.library.ask(side.study, "token", image_id=image, token_index=drawn.token).to_dicts()
    here = [row for row in found if row["lens"] == side.lens and row["visual_layer"] == side.layer]
    return list({row["rank"]: row for row in here}.values())


def draw_neighbors(drawn: Drawn, image: str) -> None:
    """What one side says of the chosen patch."""
    row = next((one for one in drawn.rows if one["token_index"] == drawn.token), None)
    if row is None:
        st.caption("This side has no patch there.")
        return
    side = drawn.side
    place = f"row {row['row'] + 1}, column {row['col'] + 1}" if row["x0"] is not None else str(row["view"])
    head = (
        f"<b>{drawn.letter}: token {drawn.token}</b> · {token_html.safe(place)} · "
        f"{lens_name(side.lens)}, layer {side.layer}"
    )
    if verdict := token_html.verdict_html(row["verdict"]):
        head += f" · {verdict}"
    answers = answers_of(drawn, image)
    layers = side.of.library.contextual_layers(side.study) or patch_grid.contextual_layers(answers)
    st.html(f'<p class="ll-facts">{head}</p>{token_html.neighbors_html(answers, layers)}')
    if side.of.library is library():  # Explore knows no other
        at = {"study": side.study, "lens": side.lens, "layer": str(side.layer)}
        here = {**at, "image": image, "token": str(drawn.token)}
        st.page_link(EXPLORE, label=f"Open {drawn.letter} in Explore", query_params=here)


def said_of_the_patch(one: Drawn, image: str) -> str:
    """How far apart the two are on the chosen patch, and by which words; what is really there."""
    apart = one.apart.get(one.token) if one.token is not None else None
    if apart is None:
        return '<p class="ll-facts">Nothing is compared on this patch.</p>'
    words = f"Both say {_words(apart.in_both)}." if apart.in_both else "No word in common."
    text = f"<b>{percent(apart.disagreement)} apart</b> on this patch. {words}"
    row = next(row for row in one.rows if row["token_index"] == one.token)
    if row["x0"] is not None:
        regions = one.side.of.library.regions(one.side.study, image)
        size = one.side.of.library.pictures(one.side.study, (image,)).get(image)
        box = [row[end] for end in ("x0", "y0", "x1", "y1")]
        truth = token_html.truth_html(regions_in_box(regions, box, size.width if size else 1))
        text += f"<br>{truth}" if truth else ""
    return f'<p class="ll-facts">{text}</p>'


def _words(words: list[str]) -> str:
    return ", ".join(f"<b>{token_html.safe(word, 40)}</b>" for word in words)


def most_apart(one: Drawn) -> None:
    """The patches on which the two disagree most; among equal ones those of which A is surest."""
    rows = {row["token_index"]: row for row in one.rows}
    differing = [token for token, apart in one.apart.items() if apart.disagreement]
    if not differing:
        st.markdown("Both say the same words on every patch that is compared.")
        return
    ranked = sorted(differing, key=lambda token: (-one.apart[token].disagreement, -_sure(rows[token]), token))
    st.markdown("**Where they disagree most** here: words of A alone ≠ words of B alone")
    tiles = []
    for token in ranked[:MOST_PATCHES]:
        apart = one.apart[token]
        text = " ≠ ".join(_few(words) for words in (apart.only_here, apart.only_there))
        picture = Thumbnail(str(token), _place(rows[token]), 1, 1, "")
        tiles.append(small_pictures.tile(picture, f"{percent(apart.disagreement)} apart", text=text))
    go = lambda token: permalink.go(token1=token, token2=None, view1=None, view2=None)  # noqa: E731
    small_pictures.small_pictures(tiles, "patches", go, "8rem")


def _few(words: list[str]) -> str:
    return ", ".join(clip(word, 20) for word in words[:2]) + (", …" if len(words) > 2 else "") or "–"


def _sure(row: dict[str, Any]) -> float:
    return float(row["cosine"] if row["cosine"] is not None else row["logit"] or 0.0)


def _place(row: dict[str, Any]) -> str:
    return f"Row {row['row'] + 1}, column {row['col'] + 1}" if row["x0"] is not None else f"Token {row['token_index']}"


books = shelf()
if books.studies:
    compare_page(books)
else:
    st.info(
        "Nothing to compare yet: no study has answers. Build one with `latentlens-dag build`, and reload this page."
    )
