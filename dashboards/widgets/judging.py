"""What a person judges and how it is kept: the widgets and the text of the page Judge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from typing import Any

import streamlit as st

from latentlens_dag.dataset.human_judgements import (
    SKIPPED,
    HumanJudgement,
    Item,
    JudgingFolder,
    StoredJudgements,
    Verdict,
    judgement_table,
    judging_folder,
)
from latentlens_dag.text.display import excerpt
from widgets import permalink
from widgets.downloads import download_buttons
from widgets.token_html import safe

MEANINGS: dict[Verdict, str] = {
    "concrete": "a word names what one sees in the crop.",
    "abstract": "a word is an emotion, activity, function, culture or quality that goes with what one sees there.",
    "global": "a word names what one sees elsewhere in the image.",
    "none": "no word is any of these.",
}
"""Of METHOD's judge; the first that holds for any of the words."""
_SESSION = "judged-here"
_leave_field = st.components.v2.component(
    "latentlens_leave_field",
    js="""export default function ({ parentElement }) {
  if (parentElement.hasLeft) return; // once: whoever goes back into the field stays there
  parentElement.hasLeft = true;
  const field = document.activeElement;
  if (field && field.closest(".st-key-words-person")) field.blur();
}""",
)
"""Whoever gives initials by Enter is still in their field, where the keys of the verdicts would be letters."""


class Store:
    """Judgements of a source: in its folder where that can be written, else as long as the page is open."""

    def __init__(self, source: str) -> None:
        """Look whether the source has a folder for judgements."""
        self.folder: JudgingFolder | None = judging_folder(source)
        self.problem = "This is not a home" if self.folder is None else self.folder.problem()

    def read(self, study: str) -> StoredJudgements:
        """All judgements of a study, those of this session last."""
        here = [one for one in st.session_state.get(_SESSION, ()) if one.study == study]
        try:
            kept = StoredJudgements([], 0) if self.folder is None else self.folder.read(study)
        except OSError as error:
            self.problem, kept = str(error), StoredJudgements([], 0)
        return StoredJudgements([*kept.judgements, *here], kept.unreadable)

    def add(self, judgement: HumanJudgement) -> None:
        """Keep one more."""
        try:
            if self.folder is not None and self.problem is None:
                self.folder.append(judgement)
                return
        except OSError as error:
            st.toast(f"It could not be stored: {error.strerror}", icon="⚠️")
        st.session_state.setdefault(_SESSION, []).append(judgement)

    def notice(self) -> None:
        """Say where judgements are lost with the page, and offer them as a file."""
        here: list[HumanJudgement] = st.session_state.get(_SESSION, [])
        if self.problem is None and not here:
            return
        why = self.problem or "Some judgements could not be stored"
        st.warning(f"{why}, so judgements last as long as this page is open. Download them before you leave it.")
        if here:
            download_buttons(judgement_table(here), "judgements_of_this_session", "Judgements of this session")


def words_html(answers: Sequence[Mapping[str, Any]], sentences: bool) -> str:
    """The words that are judged, nearest first; those that are the same but for case once, unless sentences differ.

    Without sentences, a word that comes several times would tell the lens.
    """
    lines = [_answer_html(row, sentences) for row in answers]
    shown = dict(zip((line.casefold() for line in reversed(lines)), reversed(lines), strict=True))
    return f'<ol class="ll-answers">{"".join(f"<li>{line}</li>" for line in reversed(shown.values()))}</ol>'


def _answer_html(row: Mapping[str, Any], sentences: bool) -> str:
    word = f'<span class="ll-word">{safe(row["word"])}</span>' if row["word"].strip() else "(blank)"
    if not sentences or row["sentence"] is None:
        return word
    cut = excerpt(row["sentence"], row["char_start"], row["char_end"])
    mark = f"<mark>{escape(cut.word)}</mark>" if cut.word else ""
    return f'{word}<p class="ll-sentence" dir="auto">{escape(cut.before)}{mark}{escape(cut.after)}</p>'


def go_to(number: int) -> None:
    """Go to an item of the sample, from 1."""
    permalink.update(item=number)


def choose_verdict(
    store: Store, study: str, person: str, item: Item, number: int, said: Verdict | None, shown: tuple[list[str], bool]
) -> None:
    """The four verdicts with their keys, and the ways back and on.

    Args:
        store: keeps what is chosen.
        study: its name.
        person: who chooses.
        item: what is judged.
        number: of the item, from 1.
        said: what the person said of it before.
        shown: the words of its answers, and whether their sentences were shown.
    """

    _leave_field(key=f"leave-field-{person}")

    def choose(verdict: Verdict) -> None:
        # While the next item is being drawn, the keys of this one still work: they must judge neither of the two.
        if permalink.get_int("item") not in (None, number):
            return
        made = datetime.now(UTC).isoformat(timespec="seconds")
        facts = {**item._asdict(), "verdict": verdict, "answers": shown[0], "sentences": shown[1]}
        store.add(HumanJudgement.model_validate({"study": study, "person": person, "made": made, **facts}))
        go_to(number + 1)

    for key, (verdict, meaning) in enumerate(MEANINGS.items(), start=1):
        with st.container(horizontal=True, vertical_alignment="center", gap="small", wrap=False):
            st.button(
                verdict.capitalize(),
                key=f"{verdict}-{number}",
                shortcut=str(key),
                width=150,
                type="primary" if said == verdict else "secondary",
                on_click=choose,
                args=(verdict,),
            )
            st.caption(meaning)
    with st.container(horizontal=True, gap="small"):
        st.button(
            "Back", key=f"back-{number}", shortcut="Backspace", disabled=number == 1, on_click=go_to, args=(number - 1,)
        )
        if said is None or said == SKIPPED:
            st.button("Skip", key=f"skip-{number}", shortcut="S", on_click=choose, args=(SKIPPED,))
        else:
            st.button("Next", key=f"next-{number}", shortcut="S", on_click=go_to, args=(number + 1,))
            st.button("Take it back", key=f"undo-{number}", shortcut="U", on_click=choose, args=(SKIPPED,))
    if said is not None:
        st.caption("You skipped this one." if said == SKIPPED else f"You said: {said}. Another choice replaces it.")
