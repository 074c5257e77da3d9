"""Compare: two layers, lenses, studies or releases on the same images, with linked clicks; where they disagree most."""

from __future__ import annotations

from typing import Any, NamedTuple

import polars as pl
import streamlit as st
from widgets import patch_grid, permalink, token_html
from widgets.comparison import choose_side, study_registry, with_disagreement
from widgets.curves import lines
from widgets.errors import show_user_errors
from widgets.image_state import ImageState, choose_view, middle_token, position
from widgets.labels import counted, escape_markdown, percent
from widgets.neighbors import draw_neighbors, ground_truth_html
from widgets.small_pictures import Entry, small_pictures, study_tiles, tile
from widgets.sources import browser_data

from latentlens_dag.browse.browser_data import BrowserData, Thumbnail
from latentlens_dag.browse.disagreement import PatchDisagreement, Side, StudyRegistry
from latentlens_dag.text.display import clip

PER_PAGE = 24
MOST_PATCHES = 12
ORDERS = ("largest disagreement first", "smallest disagreement first")
OVERLAYS = ("disagreement", *(overlay for overlay in patch_grid.OVERLAYS if overlay != "spotlight"))
NAMES = {**patch_grid.OVERLAY_NAMES, "disagreement": "Disagreement"}
MEASURE = (
    "Disagreement: of the words among the answers of either side, the share that only one of them has "
    "(1 - words of both / words of either; 0 % is the same words, 100 % no word in common)."
)


class ComparedImage(NamedTuple):
    """One side of a comparison of an image."""

    letter: str
    data: BrowserData
    state: ImageState
    disagreements: dict[int, PatchDisagreement]
    """With the other side, by token."""


@st.fragment
@show_user_errors()
def compare_page(registry: StudyRegistry) -> None:
    """Two sides, and their disagreement on all images or on one."""
    left, right = st.columns(2, gap="medium")
    with left:
        one = choose_side(registry, "A", "1", next(iter(registry.entries)), 0)
    with right:
        elsewhere = [label for label, entry in registry.entries.items() if entry.data is not one.entry.data]
        alike = [label for label in elsewhere if registry.entries[label].facts.name == one.study]
        study = (alike or elsewhere or [one.entry.label])[0]
        other = choose_side(registry, "B", "2", study, 0 if elsewhere else 1)
    shared = registry.shared_images(one.entry, other.entry)
    image = permalink.get("image")
    if not shared:
        st.warning(
            f"{escape_markdown(one.entry.label)} and {escape_markdown(other.entry.label)} have no image in common, so "
            "there is nothing to compare. Images are identified by their content: choose studies of the same pictures."
        )
    elif image not in shared:
        if image is not None:
            st.warning("One of the two sides has no such image; these are in both.")
        gallery(registry, one, other)
    else:
        image_view(registry, one, other, image)


def choose_answer_count(registry: StudyRegistry, one: Side, other: Side) -> int:
    """Ask how many answers of a patch count."""
    most = min(registry.top_k(one.entry), registry.top_k(other.entry))
    if most <= 1:
        return 1
    return permalink.choice("Answers compared", "top", range(1, most + 1), most, dropdown=True, width=130)


def gallery(registry: StudyRegistry, one: Side, other: Side) -> None:
    """All images that both sides have, ranked."""
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        order = permalink.choice("Order", "order", ORDERS, ORDERS[0], dropdown=True, width=240)
        top = choose_answer_count(registry, one, other)
    images = registry.by_image(one, other, top)
    if images.is_empty():
        st.info("No patch has answers on both sides. Try another layer or lens, or finish the build.")
        return
    if order != ORDERS[0]:
        images = images.reverse()
    patches, kind = int(images["patches"].sum()), "text" if one.entry.facts.of_texts else "image"
    mean = float((images["disagreement"] * images["patches"]).sum()) / patches
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(f"{counted(len(images), kind)}, mean disagreement **{percent(mean)}** over {patches:,} patches")
        page = permalink.page(-(-len(images) // PER_PAGE))
    rows = images[(page - 1) * PER_PAGE : page * PER_PAGE].to_dicts()
    pictures = thumbnails(one, other, tuple(row["image_id"] for row in rows))
    note = "{} disagreement; no common word: {}"
    entries = [
        Entry(row["image_id"], note.format(percent(row["disagreement"]), percent(row["disjoint"]))) for row in rows
    ]
    tiles = study_tiles(one.entry.data, one.entry.facts, entries, pictures)
    small_pictures(tiles, "apart", lambda chosen: permalink.update(image=chosen, token1=None, token2=None))
    disagreement_by_layer(registry, one, other, top, None)
    st.caption(f"{MEASURE} No common word: the share of patches at 100 %.")


def thumbnails(one: Side, other: Side, ids: tuple[str, ...]) -> dict[str, Thumbnail]:
    """The thumbnails of either side; those that have pixels are preferred."""
    ours, others = (side.entry.data.thumbnails(side.study, ids) for side in (one, other))
    return {**others, **{image: picture for image, picture in ours.items() if picture.source or image not in others}}


def disagreement_by_layer(registry: StudyRegistry, one: Side, other: Side, top: int, image: str | None) -> None:
    """The curve of the disagreement over layers."""
    curve = registry.by_layer(one, other, top, image)
    if len(curve) < 2:
        return
    same = (one.entry, one.lens) == (other.entry, other.lens)
    kind = "text" if one.entry.facts.of_texts else "image"
    what = f"A at layer {one.layer} with B at every layer" if same else "both sides at the same layer"
    where = f"on this {kind}" if image else f"in a sample of {kind}s"
    st.markdown(f"**Layer by layer**: mean disagreement {where}, {what}")
    curve = curve.with_columns(sides=pl.lit("A and B"))
    lines(curve, "layer", "disagreement", "sides", y_title="Mean disagreement", number_format=".0%")


def image_view(registry: StudyRegistry, one: Side, other: Side, image: str) -> None:
    """One image on both sides."""
    sides = one, other
    rows = [
        side.entry.data.collect(side.study, "patches", image_id=image, lens=side.lens, layer=side.layer).to_dicts()
        for side in sides
    ]
    tokens = choose_tokens(registry, one, other, image, rows)
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        st.button("← All texts" if one.entry.facts.of_texts else "← All images", on_click=_leave)
        overlay = permalink.choice(
            "Overlay", "overlay", OVERLAYS, "disagreement", format_func=NAMES.__getitem__, dropdown=True, width=170
        )
        top = choose_answer_count(registry, one, other)
        views = [choose_view(rows[n], tokens[n], "AB"[n], "12"[n], dropdown=True) for n in (0, 1)]
    compared = [
        ComparedImage(
            "AB"[n],
            side.entry.data,
            ImageState(side.entry.facts, image, side.lens, side.layer, rows[n], views[n], tokens[n], overlay),
            registry.by_patch(side, sides[1 - n], image, top),
        )
        for n, side in enumerate(sides)
    ]
    picture = thumbnails(one, other, (image,)).get(image) or compared[0].state.blank()
    st.html(f"<h1>{token_html.safe(picture.file_name, 80)}</h1>{patch_summary_html(compared[0])}")
    for column, side in zip(st.columns(2, gap="medium"), compared, strict=True):
        with column:
            draw_side(side, picture)
    left, right = st.columns(2, gap="medium")
    with left:
        draw_largest_disagreements(compared[0])
    with right:
        disagreement_by_layer(registry, one, other, top, image)
    st.caption(MEASURE)


def _leave() -> None:
    permalink.update(image=None, token1=None, token2=None, view1=None, view2=None)


def choose_tokens(
    registry: StudyRegistry, one: Side, other: Side, image: str, rows: list[list[dict[str, Any]]]
) -> tuple[int | None, int | None]:
    """The tokens that the address names; if it names that of one side only, the other side has the linked one."""
    known = [{row["token_index"] for row in side} for side in rows]
    named = [permalink.get_int(name) for name in ("token1", "token2")]
    token, other_token = (number if number in tokens else None for number, tokens in zip(named, known, strict=True))
    if token is None and other_token is None:
        token = middle_token(rows[0])
    if token is None and other_token is not None:
        token = registry.linked_tokens(other.entry, one.entry, image).get(other_token)
    elif other_token is None and token is not None:
        other_token = registry.linked_tokens(one.entry, other.entry, image).get(token)
    return token, other_token


def draw_side(side: ComparedImage, picture: Thumbnail) -> None:
    """The picture with the patches of one side, where a click chooses the patch of both, and its neighbors."""
    state = side.state
    grid = state.grid(side.data, picture, side.letter)
    if state.overlay == "disagreement":
        grid = with_disagreement(grid, side.disagreements)
    own, other = ("1", "2") if side.letter == "A" else ("2", "1")
    follow = {f"token{other}": None, f"view{other}": None}  # the other side follows
    chosen = lambda index: permalink.update(**{f"token{own}": index, **follow})  # noqa: E731
    patch_grid.patch_grid(grid, f"grid-{side.letter}", chosen)
    if state.token is None:
        st.caption("This side has no patch there.")
        return
    draw_neighbors(side.data, state, f"{side.letter}: token")
    if side.data is browser_data():  # Explore has no other source
        address = {"study": state.study.name, "lens": state.lens, "layer": str(state.layer)}
        address |= {"image": state.image, "token": str(state.token)}
        st.page_link(permalink.EXPLORE, label=f"Open {side.letter} in Explore", query_params=address)


def patch_summary_html(side: ComparedImage) -> str:
    """The disagreement on the chosen patch, the words that both sides share, and the ground truth."""
    patch = None if side.state.token is None else side.disagreements.get(side.state.token)
    if patch is None:
        return '<p class="ll-facts">Nothing is compared on this patch.</p>'
    shared = ", ".join(f"<b>{token_html.safe(word, 40)}</b>" for word in patch.in_both)
    words = f"Both say {shared}." if shared else "No word in common."
    truth = ground_truth_html(side.data, side.state)
    summary = f"<b>{percent(patch.disagreement)} disagreement</b> on this patch. {words}"
    return f'<p class="ll-facts">{summary}{"<br>" + truth if truth else ""}</p>'


def draw_largest_disagreements(side: ComparedImage) -> None:
    """The patches on which the two disagree most; among equal ones the most similar answers of A come first."""
    rows = {row["token_index"]: row for row in side.state.rows}
    patches = [(token, patch) for token, patch in side.disagreements.items() if patch.disagreement]
    if not patches:
        st.markdown("Both say the same words on every patch that is compared.")
        return
    patches.sort(key=lambda pair: (-pair[1].disagreement, -patch_grid.similarity(rows[pair[0]]), pair[0]))
    st.markdown("**Largest disagreement** on this image: words of A alone ≠ words of B alone")
    tiles = []
    for token, patch in patches[:MOST_PATCHES]:
        row = rows[token]
        place = position(row).capitalize() if row["x0"] is not None else f"Token {token}"
        text = f"{_first_words(patch.only_here)} ≠ {_first_words(patch.only_there)}"
        note = f"{percent(patch.disagreement)} disagreement"
        tiles.append(tile(Thumbnail(str(token), place, 1, 1, ""), note, text=text))
    chosen = lambda token: permalink.update(token1=token, token2=None, view1=None, view2=None)  # noqa: E731
    small_pictures(tiles, "patches", chosen, "8rem")


def _first_words(words: list[str]) -> str:
    return ", ".join(clip(word, 20) for word in words[:2]) + (", …" if len(words) > 2 else "") or "–"


registry = study_registry()
if registry.entries:
    compare_page(registry)
else:
    st.info(
        "Nothing to compare yet: no study has answers. Build one with `latentlens-dag build`, and reload this page."
    )
