"""Judge: people judge answers without knowing which lens gave them; and the agreement of all judges."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import streamlit as st
from widgets import permalink
from widgets.agreement import agreement_view, summary
from widgets.crop import outlined_html
from widgets.downloads import download_buttons
from widgets.judging import MEANINGS, JudgementStore, choose_verdict, go_to, words_html
from widgets.labels import counted, escape_markdown, lens_name
from widgets.sources import browser_data, choose_study

from latentlens_dag.browse.browser_data import BrowserData, StudyFacts, Thumbnail
from latentlens_dag.browse.judging import current_ratings, item_answers, item_box, patches_by_image
from latentlens_dag.dataset.human_judgements import (
    SKIPPED,
    HumanJudgement,
    Item,
    draw_sample,
    judgement_table,
    latest_judgements,
    person_name,
)
from latentlens_dag.errors import UserError

STYLE = Path(__file__).parents[1] / "widgets" / "judging.css"
EVERY = "all, mixed"
COUNTS = (20, 50, 100, 200)
SHOWN = ("words", "words and sentences")


class Sample(NamedTuple):
    """A sample for people to judge, and how it is shown."""

    lenses: tuple[str, ...]
    layers: tuple[int, ...]
    size: int
    seed: int
    sentences: bool


def judge_page(data: BrowserData, study: StudyFacts) -> None:
    """Judging, or the agreement of the judgements."""
    store = JudgementStore(data.source)
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        what = permalink.choice("Show", "show", ("judging", "agreement"), "judging", format_func=str.capitalize)
        typed = (
            permalink.text_input("Your initials", "person", placeholder="ab", width=150) if what == "judging" else ""
        )
    store.notice()
    if what == "agreement":
        agreement_page(data, store, study)
        return
    try:
        person = person_name(typed) if typed.strip() else None
    except UserError as error:
        st.error(escape_markdown(str(error)))
        return
    # Closed while a person judges: a telephone has room for the patch and the verdicts only.
    with st.expander("Which patches to judge", expanded=person is None):
        sample = choose_sample(study)
    if person is None:
        explain()
    else:
        # Another person or sample starts at its first item.
        begun = (study.name, person, sample)
        if st.session_state.setdefault("judging-of", begun) != begun:
            st.session_state["judging-of"] = begun
            permalink.update(item=None)
        items = sampled(data, id(data), study.name, *sample[:4])
        judging(data, store, study, person, items, sample.sentences)


def choose_sample(study: StudyFacts) -> Sample:
    """Ask for the sample."""
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        lens = permalink.choice(
            "Lens", "lens", (EVERY, *study.lenses), EVERY, format_func=lens_name, dropdown=True, width=150
        )
        count = permalink.choice("How many", "count", COUNTS, COUNTS[0], dropdown=True, width=90)
        read = SHOWN[0] if lens == EVERY else SHOWN[1]
        shown = permalink.choice("Shown", "read", SHOWN, read, dropdown=True, width=190)
        permalink.text_input("Seed", "seed", placeholder="0", width=90)
    layers = permalink.multi_choice("Visual layers (none chosen: all)", "layers", study.visual_layers)
    lenses = study.lenses if lens == EVERY else (lens,)
    return Sample(lenses, tuple(layers), count, permalink.get_int("seed") or 0, shown == SHOWN[1])


def explain() -> None:
    """The instructions for a person."""
    st.markdown("Enter your initials to begin. For each outlined patch, choose the first of these that is true:")
    st.markdown(
        "\n".join(f"{key}. **{name.capitalize()}**: {text}" for key, (name, text) in enumerate(MEANINGS.items(), 1))
    )
    st.markdown(
        "The words come from all lenses and layers chosen above, equally many from each, in an order that the seed "
        "gives: the same for everyone, so that several people can judge the same. Nothing says which lens or layer "
        "they are from; sentences would, since only LatentLens has them. The words may still "
        "be a hint: those of LatentLens are whole words, those of the other lenses are tokens."
    )


@st.cache_data(max_entries=20, show_spinner=False)
def sampled(
    _data: BrowserData, opened: int, study: str, lenses: tuple[str, ...], layers: tuple[int, ...], count: int, seed: int
) -> list[Item]:
    """The sample, cached as long as the data is the one with the id `opened`."""
    return draw_sample(patches_by_image(_data, study), lenses, layers, count, seed)


def judging(
    data: BrowserData, store: JudgementStore, study: StudyFacts, person: str, items: list[Item], sentences: bool
) -> None:
    """One item of the sample, or its end."""
    if not items:
        st.info("This study has no patches with a place in an image, so there is nothing to judge.")
        return
    mine = [one for one in store.read(study.name).judgements if one.person == person]
    said = {one.item: one.verdict for one in mine}
    left = [number for number, item in enumerate(items, start=1) if item not in said]
    number = permalink.get_int("item") or (left[0] if left else len(items) + 1)
    judged = sum(said.get(item, SKIPPED) != SKIPPED for item in items)
    if not 1 <= number <= len(items):
        done(items, said, left, mine)
        return
    st.progress(judged / len(items), f"Item {number} of {len(items)}; {judged} judged by {person}")
    item = items[number - 1]
    answers = item_answers(data, study.name, item)
    pictures = data.thumbnails(study.name, (item.image_id,))
    box = item_box(data, study.name, item)
    picture = pictures.get(item.image_id) or Thumbnail(item.image_id, "", int(box[2]) + 1, int(box[3]) + 1, "")
    left_half, right_half = st.columns([1, 1], gap="medium")
    with left_half:
        st.html(outlined_html(picture, box))
    with right_half:
        st.html(words_html(answers, sentences) if answers else '<p class="ll-muted">No answers were built here.</p>')
        words = [row["word"] for row in answers]
        choose_verdict(store, study.name, person, item, number, said.get(item), (words, sentences))


def done(items: list[Item], said: Mapping[Item, str], left: list[int], mine: list[HumanJudgement]) -> None:
    """The end of the sample, and the items that were left out."""
    skipped = [number for number, item in enumerate(items, start=1) if said.get(item) == SKIPPED]
    judged = len(items) - len(left) - len(skipped)
    st.success(f"{judged} of {counted(len(items), 'item')} judged. Thank you!")
    with st.container(horizontal=True):
        st.button("Back", key="back", shortcut="Backspace", on_click=go_to, args=(len(items),))
        for name, numbers in (("not judged yet", left), ("skipped", skipped)):
            if numbers:
                st.button(f"To the first of {len(numbers)} {name}", key=name, on_click=go_to, args=(numbers[0],))
        st.button("Agreement", key="agreement", on_click=lambda: permalink.update(show="agreement", item=None))
    download_buttons(judgement_table(latest_judgements(mine)), "my_judgements", "All my judgements")


def agreement_page(data: BrowserData, store: JudgementStore, study: StudyFacts) -> None:
    """The agreement of the judges."""
    stored = store.read(study.name)
    ratings = current_ratings(data, study.name, stored.judgements)
    summary(ratings.rows, ratings.outdated, stored.unreadable)
    if not ratings.rows.is_empty():
        agreement_view(ratings.rows)
        download_buttons(ratings.rows, "judgements", "Judgements")


data = browser_data()
study = choose_study(data)
st.html(STYLE)
if study.of_texts:
    st.info("This study is of texts. Judging needs pictures.")
else:
    judge_page(data, study)
