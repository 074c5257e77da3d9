"""The widgets and the texts of the page Judge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
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
from widgets import permalink
from widgets.downloads import download_buttons
from widgets.token_html import safe, sentence_html

MEANINGS: dict[Verdict, str] = {
    "concrete": "a word names what one sees in the crop.",
    "abstract": "a word is an emotion, activity, function, culture or quality that goes with what one sees there.",
    "global": "a word names what one sees elsewhere in the image.",
    "none": "no word is any of these.",
}
"""The verdicts; the first whose meaning holds for any of the words."""
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
"""After Enter the initials still have the focus, and the keys of the verdicts would type letters there."""


class JudgementStore:
    """The judgements of a source: in its folder if that can be written, else as long as the page is open."""

    def __init__(self, source: str) -> None:
        """Find the source's folder for judgements."""
        self.folder: JudgingFolder | None = judging_folder(source)
        self.problem = "This is not a home" if self.folder is None else self.folder.problem()

    def read(self, study: str) -> StoredJudgements:
        """All judgements of a study, those of this session last."""
        here = [one for one in st.session_state.get(_SESSION, ()) if one.study == study]
        try:
            stored = StoredJudgements([], 0) if self.folder is None else self.folder.read(study)
        except OSError as error:
            self.problem, stored = str(error), StoredJudgements([], 0)
        return StoredJudgements([*stored.judgements, *here], stored.unreadable)

    def add(self, judgement: HumanJudgement) -> None:
        """Store one more judgement."""
        try:
            if self.folder is not None and self.problem is None:
                self.folder.append(judgement)
                return
        except OSError as error:
            st.toast(f"It could not be stored: {error.strerror}", icon="⚠️")
        st.session_state.setdefault(_SESSION, []).append(judgement)

    def notice(self) -> None:
        """Warn if judgements will be lost with the page, and offer them as a file."""
        here: list[HumanJudgement] = st.session_state.get(_SESSION, [])
        if self.problem is None and not here:
            return
        why = self.problem or "Some judgements could not be stored"
        st.warning(f"{why}, so judgements last as long as this page is open. Download them before you leave it.")
        if here:
            download_buttons(judgement_table(here), "judgements_of_this_session", "Judgements of this session")


def words_html(answers: Sequence[Mapping[str, Any]], sentences: bool) -> str:
    """The words to judge, nearest first, without repetitions that differ only in case.

    Without sentences, a repeated word would give the lens away.
    """
    lines = [_answer_html(row, sentences) for row in answers]
    shown = dict(zip((line.casefold() for line in reversed(lines)), reversed(lines), strict=True))
    return f'<ol class="ll-answers">{"".join(f"<li>{line}</li>" for line in reversed(shown.values()))}</ol>'


def _answer_html(row: Mapping[str, Any], sentences: bool) -> str:
    word = f'<span class="ll-word">{safe(row["word"])}</span>' if row["word"].strip() else "(blank)"
    return word + sentence_html(row) if sentences else word


def go_to(number: int) -> None:
    """Go to an item of the sample, from 1."""
    permalink.update(item=number)


def choose_verdict(
    store: JudgementStore,
    study: str,
    person: str,
    item: Item,
    number: int,
    said: Verdict | None,
    shown: tuple[list[str], bool],
) -> None:
    """The buttons of the four verdicts with their keys, and those to go back and on.

    Args:
        store: takes the verdict.
        study: its name.
        person: the judge.
        item: what is judged.
        number: of the item, from 1.
        said: the person's earlier verdict on it.
        shown: the words of its answers, and whether their sentences were shown.
    """

    _leave_field(key=f"leave-field-{person}")

    def move(step: int) -> None:
        # From the item of the address: the button may still be that of the item before, while the next one is drawn.
        go_to((permalink.get_int("item") or number) + step)

    def choose(verdict: Verdict) -> None:
        # The keys of this item still work while the next one is drawn: then they must judge neither.
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
        # One key for all items: two buttons with one shortcut, of this item and the one before, would both be pressed.
        st.button("Back", key="back", shortcut="Backspace", disabled=number == 1, on_click=move, args=(-1,))
        if said is None or said == SKIPPED:
            st.button("Skip", key=f"skip-{number}", shortcut="S", on_click=choose, args=(SKIPPED,))
        else:
            st.button("Next", key="next", shortcut="S", on_click=move, args=(1,))
            st.button("Withdraw", key=f"undo-{number}", shortcut="U", on_click=choose, args=(SKIPPED,))
    if said is not None:
        st.caption("You skipped this one." if said == SKIPPED else f"You said: {said}. Another choice replaces it.")
