"""Ask: what is a word of your sentence like, and which patches are nearest to it. The study's model reads the text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import streamlit as st
from widgets import permalink, small_pictures, token_html
from widgets.labels import counted, plain
from widgets.sources import chosen_study, library, may_run_code

from latentlens_dag.browse.browser_data import BrowserData, StudyFacts, Thumbnail
from latentlens_dag.browse.reverse_search import NearestToken, NearestTokens, token_boxes, visual_state_files
from latentlens_dag.browse.text_search import LONGEST_TEXT, TextSearch, build_times, home_warehouse, open_study_index
from latentlens_dag.errors import UserError
from latentlens_dag.models.layers import middle_layer
from latentlens_dag.models.model_ref import ModelRef
from latentlens_dag.schema import LATENTLENS
from latentlens_dag.storage.warehouse import Warehouse
from latentlens_dag.study.source import StudySource, study_source
from latentlens_dag.text.display import clip, printable

if TYPE_CHECKING:
    from latentlens_dag.models.language_model import LanguageModel

EXPLORE = Path(__file__).parent / "explore.py"
COUNTS = (25, 50, 100)
ANSWERS = (5, 10, 20)
UNIQUE_OF: dict[str, Literal["word", "sentence"] | None] = {"nothing": None, "word": "word", "sentence": "sentence"}
UNIQUE = tuple(UNIQUE_OF)
HINT = (
    "Type a phrase or a sentence. The study's language model reads it, and each of its tokens can be asked two things: "
    "which words of the index it is like, and which patches of the images are nearest to it."
)


def ask_page(data: BrowserData, study: StudyFacts) -> None:
    """Ask for a text and what is wanted of it."""
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        text = permalink.words("Text", "text", placeholder="a red ball", width=420, max_chars=LONGEST_TEXT)
        ways = {"sentences": "Sentences like it", "patches": f"{'Tokens' if study.of_texts else 'Patches'} like it"}
        way = permalink.choice("Show", "show", tuple(ways), "sentences", shown=ways.__getitem__)
    text = text.strip()[:LONGEST_TEXT]
    try:
        warehouse = home_warehouse(data.source)
        if not text:
            st.info(HINT)
            return
        asked = opened(data, study.name)
        chips = st.container()
        with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
            layers = range(asked.model.depth)
            default = middle_layer(asked.index.layers)
            layer = permalink.choice("Read at layer", "at", layers, default, wide=True, width=120)
            with chips:
                token = chosen_token(asked.question(text, layer).tokens)
            wanted = (
                how_sentences(asked)
                if way == "sentences"
                else how_patches(visual_state_files(warehouse, study.name), layer)
            )
        if isinstance(wanted, How):
            sentences(asked, text, layer, token, wanted)
        else:
            patches(data, study, asked.nearest(text, layer, token, wanted.most, wanted.files))
    except UserError as error:
        st.error(plain(str(error)))


def opened(data: BrowserData, study: str) -> TextSearch:
    """The study's model and index, loaded once per server, as long as the home says the same of them."""
    warehouse = home_warehouse(data.source)
    source = study_source(warehouse, study, may_run_code())
    made = build_times(warehouse, study, source.index_name)
    return _asked(source, str(warehouse.root), study, made, _model(source.model))


@st.cache_resource(show_spinner="Loading the language model …", max_entries=1)
def _model(model: ModelRef) -> LanguageModel:
    """The model, by all that names it: one whose code may not be run is another."""
    from latentlens_dag.models.loading import load_language_model

    return load_language_model(model)


@st.cache_resource(show_spinner="Opening the index …", max_entries=2)
def _asked(source: StudySource, warehouse: str, study: str, made: tuple[int, ...], _model: LanguageModel) -> TextSearch:
    """The answers of a model and an index, until a build writes either."""
    return TextSearch(_model, open_study_index(Warehouse(Path(warehouse)), study, source.index_name))


def chosen_token(tokens: Sequence[str]) -> int:
    """Ask which token of the text is meant; by default the last, which has read all of it."""
    return permalink.choice("Token", "piece", range(len(tokens)), len(tokens) - 1, shown=lambda n: chip(tokens[n]))


def chip(token: str) -> str:
    """A token as a button shows it."""
    return plain(clip(token.strip(), 24) or "␣")


class How(NamedTuple):
    """How the index is asked."""

    most: int
    layers: tuple[int, ...] | None
    unique: Literal["word", "sentence"] | None


def how_sentences(asked: TextSearch) -> How:
    """Ask for the layers of the index, and for how many answers of which kind."""
    source = permalink.choice("Contextual layer", "from", ("any", *asked.index.layers), "any", wide=True, width=140)
    differ = permalink.choice("Answers differ in", "unique", UNIQUE, UNIQUE[0], wide=True, width=150)
    count = permalink.choice("Answers", "answers", ANSWERS, ANSWERS[0], wide=True, width=90)
    return How(count, None if source == "any" else (int(str(source)),), UNIQUE_OF[differ])


def sentences(asked: TextSearch, text: str, layer: int, token: int, how: How) -> None:
    """The occurrences of the index that the token is like."""
    found = asked.answers(text, layer, token, how.most, how.layers, how.unique)
    rows = [{**row, "logit": None, "earned": None} for row in found.rows]
    name = token_html.safe(asked.question(text, layer).tokens[token].strip() or "␣", 40)
    head = f'<p class="ll-facts"><b>{name}</b>, token {token + 1} of the text, at layer {layer} is like:</p>'
    st.html(f'<div style="max-width: 60rem">{head}{token_html.neighbors_html(rows, asked.index.layers)}</div>')
    many = counted(len(how.layers or asked.index.layers), "layer")
    method = printable(found.method.partition(":")[0])
    st.caption(f"Compared with {asked.index.rows:,} occurrences at {many} of the index; method: {method}.")


class Which(NamedTuple):
    """Which visual states are compared."""

    most: int
    files: tuple[tuple[int, tuple[Path, ...]], ...]


def how_patches(files: Mapping[int, Sequence[Path]], layer: int) -> Which:
    """Ask for the visual layer, and for how many patches."""
    near = min(files, key=lambda number: (abs(number - layer), number))
    wanted = permalink.choice("Visual layer", "states", (*files, "any"), near, wide=True, width=110)
    count = permalink.choice("Most", "count", COUNTS, COUNTS[1], wide=True, width=90)
    return Which(count, tuple((one, tuple(paths)) for one, paths in files.items() if wanted in (one, "any")))


def patches(data: BrowserData, study: StudyFacts, found: NearestTokens) -> None:
    """The visual tokens that the token is nearest to, image by image."""
    kind = "states of tokens" if study.of_texts else "states of patches"
    images = counted(len({hit.image_id for hit in found.hits}), "text" if study.of_texts else "image")
    st.markdown(
        f"The {len(found.hits)} nearest of {found.compared:,} {kind}, in {images}; a click opens the nearest one"
    )
    small_multiples(data, study, found.hits)


def small_multiples(data: BrowserData, study: StudyFacts, hits: Sequence[NearestToken]) -> None:
    """The images with their hits lit, the one with the nearest first."""
    by_image: dict[str, list[NearestToken]] = {}
    for hit in hits:
        by_image.setdefault(hit.image_id, []).append(hit)
    ids = tuple(by_image)
    pictures = data.pictures(study.name, ids)
    texts = data.texts(study.name, ids) if study.of_texts else {}
    boxes = token_boxes(data.dataset(study.name), study.name, hits)
    tiles = [
        small_pictures.tile(
            pictures.get(image) or Thumbnail(image, image, 1, 1, ""),
            note(data, study, mine),
            None if study.of_texts else _lit(boxes, mine),
            texts.get(image),
        )
        for image, mine in by_image.items()
    ]

    def chosen(image: str) -> None:
        st.session_state["ask-opened"] = by_image[image][0]

    small_pictures.small_pictures(tiles, "nearest", chosen)
    if best := st.session_state.pop("ask-opened", None):
        lens = {"lens": LATENTLENS} if LATENTLENS in study.lenses else {}
        place = {"image": best.image_id, "token": str(best.token_index), "layer": str(best.visual_layer)}
        # Streamlit goes there by a step on this page with the new address: with the old one in it, it shows the same.
        here = st.query_params.to_dict()
        st.switch_page(EXPLORE, query_params={**here, "study": study.name, **place, **lens})


def _lit(boxes: Mapping[tuple[str, int], list[float]], hits: Sequence[NearestToken]) -> list[list[float]]:
    places = dict.fromkeys((hit.image_id, hit.token_index) for hit in hits)
    return [boxes[place] for place in places if place in boxes]


def note(data: BrowserData, study: StudyFacts, hits: Sequence[NearestToken]) -> str:
    """What stands below an image."""
    best, patches = hits[0], len({hit.token_index for hit in hits})
    at = f"cosine {best.cosine:.2f} at layer {best.visual_layer}"
    if not study.of_texts:
        return f"{counted(patches, 'patch', 'patches')}, {at}"
    nearest = data.token_texts(study.name, best.image_id).get(best.token_index, "").strip()
    return f"{counted(patches, 'token')}, nearest {nearest}, {at}"


data = library()
study = chosen_study(data)
if study is not None:
    ask_page(data, study)
