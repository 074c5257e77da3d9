from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given, settings
from hypothesis import strategies as st

from latentlens_dag.schema import CORPUS_ABLATION, OCCURRENCES, SINKS
from latentlens_dag.storage.hashing import hash_bytes, within_fraction
from latentlens_dag.study.corpus_ablation import IndexPart, corpus_ablation, index_parts, of_latentlens
from latentlens_dag.study.interpretability import interpretability
from tests.study.test_interpretability import judged, table

SMALL, WHOLE = IndexPart(0.1, 30, 20, 10), IndexPart(1.0, 300, 150, 40)


def _occurrences(path: Path, sentences: list[tuple[str, int]]) -> Path:
    row = dict.fromkeys(OCCURRENCES.names)
    rows = [row | {"sentence_id": sentence, "token_id": token} for sentence, token in sentences]
    pq.write_table(pa.Table.from_pylist(rows, schema=OCCURRENCES), path)
    return path


@settings(max_examples=25, deadline=None)
@given(
    tokens=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 5)), max_size=60),
    fractions=st.lists(st.floats(0.01, 1), min_size=1, max_size=3),
    of_all=st.sampled_from([1.0, 0.5]),
)
def test_a_part_has_the_occurrences_sentences_and_tokens_of_its_fraction(
    tmp_path_factory: object, tokens: list[tuple[int, int]], fractions: list[float], of_all: float
) -> None:
    folder: Path = tmp_path_factory.mktemp("parts")  # type: ignore[attr-defined]
    rows = [(hash_bytes(bytes([sentence])), token) for sentence, token in tokens]
    files = [_occurrences(folder / f"{shard}.parquet", rows[shard::2]) for shard in range(2)]
    for found, fraction in zip(index_parts(files, fractions, of_all), fractions, strict=True):
        own = [row for row in rows if within_fraction(row[0], fraction * of_all)]
        assert found == (fraction, len(own), len({one for one, _ in own}), len({token for _, token in own}))


def test_each_part_has_the_rows_of_interpretability_in_order_of_the_parts() -> None:
    few = [judged(image, token, "none" if token else "concrete") for image in "ab" for token in range(4)]
    many = [judged(image, token, "concrete") for image in "ab" for token in range(4)]
    sink = [{"study": "s", "image_id": "a", "token_index": 3, "visual_layer": 3, "norm": 9.0, "sink_norm": 1.0}]
    sinks = pa.Table.from_pylist(sink, schema=SINKS)
    found = corpus_ablation({SMALL: [table(few[:4]), table(few[4:])], WHOLE: [table(many)]}, 5, sinks)
    assert found.schema == CORPUS_ABLATION
    expected = []
    for part, rows in ((SMALL, few), (WHOLE, many)):
        for row in interpretability(table(rows), 5, sinks).to_pylist():
            del row["lens"]
            expected.append(row | part._asdict())
    assert found.to_pylist() == expected
    assert {row["patch_group"] for row in expected} == {"all", "object", "sink"}


def test_without_parts_there_are_no_rows() -> None:
    assert corpus_ablation({}, 5).equals(CORPUS_ABLATION.empty_table())


def test_only_judgements_of_latentlens_are_taken(tmp_path: Path) -> None:
    rows = [judged("a", token, "concrete") | {"lens": lens} for token in range(2) for lens in ("latentlens", "other")]
    pq.write_table(table(rows), tmp_path / "judgements.parquet")
    found = of_latentlens(tmp_path / "judgements.parquet").to_pylist()
    assert [(row["token_index"], row["lens"]) for row in found] == [(0, "latentlens"), (1, "latentlens")]
