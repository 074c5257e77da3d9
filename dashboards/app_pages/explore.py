"""Explore: a gallery of images (or texts), and one image with all that is said of each of its patches."""

from __future__ import annotations

from typing import Any

import streamlit as st
from parts import address, cards, patch_grid, small_pictures
from parts.names import counted, lens_name
from parts.opened import chosen_study, library
from parts.strip import strip, strip_data
from parts.told import told

from latentlens_dag.browsing import (
    Library,
    Picture,
    StudyFacts,
    clipped,
    regions_at,
    similarity_steps,
    views_of,
    wanted_words,
)

PER_PAGE = 24
VERDICTS = ("any", "concrete", "abstract", "global", "none")


def lens_and_layer(study: StudyFacts) -> tuple[str, int]:
    """Ask for the lens and the visual layer."""
    lens = address.choice("Lens", "lens", study.lenses, study.lenses[0], shown=lens_name)
    middle = study.visual_layers[len(study.visual_layers) // 2]
    many = len(study.visual_layers) > 12
    layer = address.choice("Visual layer", "layer", study.visual_layers, middle, wide=many, **_width(many))
    return lens, layer


def _width(many: bool) -> dict[str, Any]:
    return {"width": 120} if many else {}


def gallery(data: Library, study: StudyFacts) -> None:
    """The images that have patches of a kind."""
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        lens, layer = lens_and_layer(study)
        typed = address.words("Words found", "word", placeholder="dog, cat", width=190)
        verdict = address.choice("Judged", "verdict", VERDICTS, "any", wide=True, width=130)
        steps = similarity_steps(data, study.name, lens, layer)
        least = address.choice("Similarity at least", "similarity", ("any", *steps), "any", wide=True, width=150)
    found = data.ask(
        study.name,
        "find_images",
        lens=lens,
        layer=layer,
        words=wanted_words(typed),
        verdict=None if verdict == "any" else verdict,
        similarity=None if least == "any" else least,
    )
    filtered = bool(wanted_words(typed)) or verdict != "any" or least != "any"
    kind = "text" if study.of_texts else "image"
    pages = max(1, -(-len(found) // PER_PAGE))
    page = min(address.number_here("page") or 1, pages)
    with st.container(horizontal=True, vertical_alignment="center"):
        tail = ", most patches first" if filtered else ""
        st.markdown(f"{counted(len(found), kind)}{' with such patches' if filtered else ''}{tail}")
        if pages > 1:
            page = address.choice(
                "Page", "page", range(1, pages + 1), 1, wide=True, width=90, label_visibility="collapsed"
            )
    if found.is_empty():
        st.info("No patch fits. Take a filter away, or try another layer or lens.")
        return
    rows = found[(page - 1) * PER_PAGE : page * PER_PAGE].to_dicts()
    ids = tuple(row["image_id"] for row in rows)
    texts = data.texts(study.name, ids) if study.of_texts else {}
    pictures = data.pictures(study.name, ids)
    tiles = []
    for row in rows:
        picture = pictures.get(row["image_id"]) or Picture(
            row["image_id"], row["file_name"] or row["image_id"], 1, 1, ""
        )
        count = f"{row['patches']} of {row['tokens']} patches, most often" if filtered else "mostly"
        tiles.append(
            small_pictures.tile(picture, f"{count} {row['frequent_word'] or '–'}", text=texts.get(row["image_id"]))
        )

    def opened(image: str) -> None:
        overlay = "spotlight" if wanted_words(typed) else None
        address.go(image=image, token=None, page=None, overlay=overlay, view=None)

    small_pictures.small_pictures(tiles, "gallery", opened)


@st.fragment
@told()
def image_view(study: StudyFacts, image: str, title: str) -> None:
    """One image: the toolbar, the picture, the neighbors of the chosen patch, the strip."""
    data = library()  # asked for again with every click, so that a page that stays open reads what was built since
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        if st.button("← All texts" if study.of_texts else "← All images", on_click=_leave):
            st.rerun()
        lens, layer = lens_and_layer(study)
        overlay = address.choice(
            "Overlay",
            "overlay",
            patch_grid.OVERLAYS,
            "none",
            shown=patch_grid.OVERLAY_NAMES.__getitem__,
            wide=True,
            width=170,
        )
        rows = data.ask(study.name, "patches", image_id=image, lens=lens, layer=layer).to_dicts()
        views = views_of(rows)
        view = views[0] if views else None
        if len(views) > 1:
            name = address.choice("View", "view", [one.name for one in views], views[0].name)
            view = next(one for one in views if one.name == name)
        typed = ""
        if overlay == "spotlight":
            typed = address.words("Word", "word", placeholder="dog, cat", width=170)
    if not rows:
        st.warning("This study has no visual tokens of such an image. Go back to all images.")
        return
    token = _chosen(rows, view.tokens if view else ())
    st.html(f"<h1>{cards.safe(title, 80)}</h1>")
    left, right = st.columns([0.82, 1], gap="medium")
    with left:
        draw_grid(data, study, image, rows, view.tokens if view else (), overlay, token, typed, (lens, layer))
    answers = data.ask(study.name, "token", image_id=image, token_index=token).to_dicts()
    with right:
        draw_neighbors(data, study, image, answers, rows, token, (lens, layer))
    st.markdown("**The same patch through all layers and lenses**")
    strip(
        strip_data(answers, study.lenses, study.visual_layers, lens, layer),
        "strip",
        lambda to_lens, to_layer: address.go(lens=to_lens, layer=to_layer),
    )


def _leave() -> None:
    address.go(image=None, token=None, view=None)


def _chosen(rows: list[dict[str, Any]], shown: tuple[int, ...]) -> int:
    wanted = address.number_here("token")
    known = {row["token_index"] for row in rows}
    if wanted in known and wanted is not None:
        return wanted
    placed = [row for row in rows if row["token_index"] in set(shown)]
    return _central(placed)["token_index"] if placed else rows[0]["token_index"]


def _central(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The patch in the middle of the others."""
    across, down = (sum(row[a] + row[b] for row in rows) / len(rows) for a, b in (("x0", "x1"), ("y0", "y1")))
    return min(rows, key=lambda row: abs(row["x0"] + row["x1"] - across) + abs(row["y0"] + row["y1"] - down))


def draw_grid(
    data: Library,
    study: StudyFacts,
    image: str,
    rows: list[dict[str, Any]],
    shown: tuple[int, ...],
    overlay: str,
    token: int,
    typed: str,
    at: tuple[str, int],
) -> None:
    """The picture with its patches; clicks and arrow keys choose one."""
    picture = data.pictures(study.name, (image,)).get(image) or _blank(image, rows)
    more: dict[str, Any] = {"layers": data.contextual_layers(study.name)}
    if study.of_texts:
        more |= {"labels": data.token_texts(study.name, image), "flowing": True}
    if overlay == "spotlight" and (words := wanted_words(typed)):
        found = data.ask(study.name, "where_words", words=words, lens=at[0], layer=at[1])
        hits = found.filter(found["image_id"] == image)["token_indices"].to_list()
        more |= {"hits": frozenset(hits[0] if hits else ()), "spotlight": typed}
    label = f"Patches of {clipped(picture.file_name, 60)}; the arrow keys move from patch to patch"
    drawn = patch_grid.grid_data(picture, rows, shown, overlay, token, label, **more)
    patch_grid.patch_grid(drawn, "grid", lambda index: address.go(token=index))


def _blank(image: str, rows: list[dict[str, Any]]) -> Picture:
    """A picture without pixels, where the study's image set has gone."""
    size = [max((row[side] or 0 for row in rows), default=1) or 1 for side in ("x1", "y1")]
    return Picture(image, image, int(size[0]), int(size[1]), "")


def draw_neighbors(
    data: Library,
    study: StudyFacts,
    image: str,
    answers: list[dict[str, Any]],
    rows: list[dict[str, Any]],
    token: int,
    at: tuple[str, int],
) -> None:
    """What the lens says of the patch, and what is really there."""
    row = next(one for one in rows if one["token_index"] == token)
    place = f"row {row['row'] + 1}, column {row['col'] + 1}" if row["x0"] is not None else str(row["view"])
    head = f"<b>Token {token}</b> · {cards.safe(place)} · {lens_name(at[0])}, layer {at[1]}"
    if verdict := cards.verdict_html(row["verdict"]):
        head += f" · {verdict}"
    truth = ""
    if row["x0"] is not None:
        box = [row[side] for side in ("x0", "y0", "x1", "y1")]
        size = data.pictures(study.name, (image,)).get(image)
        truth = cards.truth_html(regions_at(data.regions(study.name, image), box, size.width if size else 1))
    here = [one for one in answers if one["lens"] == at[0] and one["visual_layer"] == at[1]]
    once = list({one["rank"]: one for one in here}.values())
    layers = data.contextual_layers(study.name) or patch_grid.contextual_layers(answers)
    st.html(f'<p class="ll-facts">{head}{"<br>" + truth if truth else ""}</p>{cards.neighbors_html(once, layers)}')


data = library()
study = chosen_study(data)
if study is not None:
    image = address.here("image")
    if image is None:
        gallery(data, study)
    else:
        pictures = data.pictures(study.name, (image,))
        title = pictures[image].file_name if image in pictures else image
        image_view(study, image, title)
