"""README and the example's own README say of SmolLM2 what its committed results say; no model is needed."""

import copy
import re
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks.results import read_results
from tests.real.answers import told_answers, wrongly_told

REPOSITORY = Path(__file__).parents[2]
EXAMPLE = REPOSITORY / "docs" / "examples" / "smollm2"
BUILT, SENSES = read_results("smollm2"), read_results("smollm2_senses")
SENTENCES = read_results("stored_vectors")["sentences"]
DOCUMENTS = {"README.md": REPOSITORY / "README.md", "docs/examples/smollm2/README.md": EXAMPLE / "README.md"}


def _pieces(name: str, built: dict[str, Any], senses: dict[str, Any], sentences: int) -> list[str]:
    gib = f"{built['peak_mib'] / 1024:.1f} GiB"
    texts, first, last = senses["texts"], senses["right_at_layer_1"], senses["right_at_layer_24"]
    if name == "README.md":
        return [
            f"reads {texts} sentences with an ambiguous word; the nearest of {sentences:,} other sentences",
            f"for {first} of the {texts} at layer 1 (chance is about half) and for {last} at layer 24",
            f"The build took {built['cpu_s']} CPU seconds and {gib}.",
        ]
    return [
        f"reads {texts} sentences that hold an ambiguous word",
        f"which words of {sentences:,} other sentences are nearest",
        f"The build takes {_minutes(built['cpu_s'])} CPU minutes and {gib} of memory",
        f"in the right one for {first} of the {texts} texts. At layer 24, it is right for {last} of them.",
    ]


def _minutes(seconds: int) -> str:
    return {1: "one", 2: "two", 3: "three"}[round(seconds / 60)]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_document_says_what_was_measured_and_answered(name: str) -> None:
    text = DOCUMENTS[name].read_text(encoding="utf-8")
    flat = re.sub(r"\s+", " ", text)
    assert [piece for piece in _pieces(name, BUILT, SENSES, SENTENCES) if piece not in flat] == []
    assert len(list(told_answers(text))) >= 20
    assert wrongly_told(text, BUILT["answers"]) == []


@pytest.mark.parametrize("name", DOCUMENTS)
def test_another_answer_or_figure_is_found(name: str) -> None:
    text = DOCUMENTS[name].read_text(encoding="utf-8")
    flat = re.sub(r"\s+", " ", text)
    told = {(one.text, one.layer) for one in told_answers(text)}
    for row in [row for row in BUILT["answers"] if (row["text"], row["layer"]) in told]:
        for changed in (row | {"cosine": f"{float(row['cosine']) - 0.001:.3f}"}, row | {"nearest": "Another one."}):
            answers = [changed if one is row else one for one in BUILT["answers"]]
            assert wrongly_told(text, answers), changed
    for key in ("cpu_s", "peak_mib"):
        built = BUILT | {key: round(1.3 * BUILT[key])}
        assert not all(piece in flat for piece in _pieces(name, built, SENSES, SENTENCES)), key
    for key in SENSES:
        senses = copy.deepcopy(SENSES) | {key: SENSES[key] + 1}
        assert not all(piece in flat for piece in _pieces(name, BUILT, senses, SENTENCES)), key
    assert not all(piece in flat for piece in _pieces(name, BUILT, SENSES, SENTENCES + 1))


def test_the_example_has_as_many_texts_as_the_documents_say() -> None:
    assert len((EXAMPLE / "texts.txt").read_text(encoding="utf-8").splitlines()) == SENSES["texts"]
