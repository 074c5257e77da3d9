"""The figures of a study whose pictures are padded, and of one whose are not but that an older version built."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from latentlens_dag.dag.assets import study as assets
from latentlens_dag.dataset.dataset import open_dataset
from latentlens_dag.index.contextual_index import ContextualIndex
from latentlens_dag.index.state_tables import read_states, write_states
from latentlens_dag.schema import LATENTLENS, NEIGHBORS
from latentlens_dag.storage.warehouse import Warehouse
from latentlens_dag.study.answer_statistics import diversity, layer_alignment
from latentlens_dag.study.lenses.base import LensInputs
from latentlens_dag.study.lenses.latentlens import LatentLens
from latentlens_dag.study.null_answers import null_answers
from latentlens_dag.study.state_statistics import StateFiles, state_statistics
from latentlens_dag.testing import tiny_project
from tests.dag.conftest import build
from tests.helpers.family_studies import study_of

SUMMARIES = ("diversity", "layer_alignment", "state_statistics")
LENSES = ("latentlens", "logitlens", "embeddinglens")
Row = dict[str, Any]


@pytest.fixture(scope="module")
def padded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of a model that pads to a square, of pictures of 2:1 and 1:2 among square ones."""
    project = tiny_project(tmp_path_factory.mktemp("padded"), family="deepseek_vl")
    pictures = project / "assets" / "tiny" / "pictures"
    for name, size in (("wide.png", (80, 40)), ("high.png", (40, 80))):
        Image.effect_noise(size, 90).convert("RGB").save(pictures / name)
    build(project)
    return project


@pytest.fixture(scope="module")
def shown(padded: Path) -> set[tuple[str, int]]:
    """The tokens that show something: by the sizes of the pictures, half of those of the two that are not square."""
    tokens = pl.read_parquet(study_of(padded) / "visual_tokens" / "*.parquet")
    images = pl.read_parquet(padded / ".latentlens" / "warehouse" / "images" / "*" / "batch_*.parquet")
    seen = tokens.join(images, on="image_id").filter(
        pl.col("x1") > 0, pl.col("y1") > 0, pl.col("x0") < pl.col("width"), pl.col("y0") < pl.col("height")
    )
    each = tokens.group_by("image_id").len().get_column("len")[0]
    assert len(tokens) - len(seen) == each
    return set(seen.select("image_id", "token_index").rows())


def _summary(project: Path, name: str) -> pa.Table:
    return pq.read_table(Warehouse(project / ".latentlens" / "warehouse").summary("tiny", name))


def _answers(project: Path, shown: set[tuple[str, int]], lenses: tuple[str, ...] = LENSES) -> list[Row]:
    """The answers of the tokens that show something, one by one."""
    files = [file for lens in lenses for file in sorted((study_of(project) / lens).glob("*/*.parquet"))]
    rows = [row for file in files for row in pq.read_table(file).to_pylist()]
    return [row for row in rows if (row["image_id"], row["token_index"]) in shown]


def test_layer_alignment_is_of_the_answers_of_tokens_that_show_something(
    padded: Path, shown: set[tuple[str, int]]
) -> None:
    answers = _answers(padded, shown, (LATENTLENS,))
    pairs = Counter((row["visual_layer"], row["contextual_layer"]) for row in answers)
    of_layer = Counter(row["visual_layer"] for row in answers)
    found = {
        (row["visual_layer"], row["contextual_layer"]): (row["neighbors"], row["share"])
        for row in _summary(padded, "layer_alignment").to_pylist()
        if row["neighbors"]
    }
    assert found == {pair: (count, count / of_layer[pair[0]]) for pair, count in pairs.items()}


def _only_shown(padded: Path, shown: set[tuple[str, int]], folder: Path) -> dict[int, list[Path]]:
    """The states of the tokens that show something, as if there were no others."""
    found: dict[int, list[Path]] = {}
    for file in sorted((study_of(padded) / "visual").glob("*/*")):
        states = read_states(file)
        own = [token in shown for token in zip(states.image_ids, states.token_index.tolist(), strict=True)]
        ids = [one for one, is_shown in zip(states.image_ids, own, strict=True) if is_shown]
        out = folder / f"{file.parent.name}_{file.name}"
        write_states(out, ids, states.token_index[own], states.states[own])
        found.setdefault(int(file.parent.name.rsplit("_", 1)[-1]), []).append(out)
    return found


def test_the_null_is_of_a_sample_of_the_tokens_that_show_something(
    padded: Path, shown: set[tuple[str, int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("latentlens_dag.study.null_answers._TOKENS", 20)
    build(padded, names=["study/tiny/layer_alignment"], force=True)
    (folder,) = (padded / ".latentlens" / "warehouse" / "index").iterdir()
    inputs = LensInputs(lambda: ContextualIndex.open(folder), lambda needs: pytest.fail(str(needs)))
    null = null_answers(LatentLens("tiny", 3), _only_shown(padded, shown, tmp_path), inputs)
    answers = pa.Table.from_pylist(_answers(padded, shown, (LATENTLENS,)), NEIGHBORS)
    assert _summary(padded, "layer_alignment").equals(layer_alignment(answers, null))
    assert set(_summary(padded, "layer_alignment")["null_tokens"].to_pylist()) == {20}


def test_distinct_words_are_of_tokens_that_show_something(padded: Path, shown: set[tuple[str, int]]) -> None:
    found = _summary(padded, "diversity")
    assert found.equals(diversity(pa.Table.from_pylist(_answers(padded, shown), NEIGHBORS)))
    assert set(found["tokens"].to_pylist()) == {len(shown)}


def test_lengths_directions_drift_and_hubs_are_of_tokens_that_show_something(
    padded: Path, shown: set[tuple[str, int]], tmp_path: Path
) -> None:
    files = _only_shown(padded, shown, tmp_path)
    batches = [StateFiles(dict(zip(files, batch, strict=True)), None) for batch in zip(*files.values(), strict=True)]
    firsts = [row for row in _answers(padded, shown, (LATENTLENS,)) if row["rank"] == 1]
    found = {row["layer"]: row for row in _summary(padded, "state_statistics").to_pylist() if row["source"] == "visual"}
    for row in state_statistics("tiny", batches, {}).to_pylist():
        stored = found[row["layer"]]
        names = [name for name, value in row.items() if value is not None and not isinstance(value, str)]
        assert {name: stored[name] for name in names} == pytest.approx({name: row[name] for name in names}, rel=1e-12)
        hubs = Counter(
            (one["contextual_layer"], one["key"]) for one in firsts if one["visual_layer"] == row["layer"]
        ).most_common()
        assert (stored["hub_tokens"], stored["first_answers"]) == (len(shown), len(hubs))
        assert stored["hub_share"] == hubs[0][1] / len(shown)
    assert len(found) == len(files)


def test_named_queries_count_the_tokens_that_show_something(padded: Path, shown: set[tuple[str, int]]) -> None:
    answers = _answers(padded, shown, ("logitlens",))
    words = Counter((row["word"] or "").lower() for row in answers)
    layers = Counter((row["word"], row["visual_layer"]) for row in answers if row["word"] == _a_word(words))
    with open_dataset(padded / ".latentlens") as dataset:
        histogram = dataset.collect("similarity_histogram", lens="logitlens")
        frequent = dataset.collect("frequent_words", lens="logitlens", top=1000)
        by_layer = dataset.collect("words_by_layer", words=_a_word(words)).filter(lens="logitlens")
        of_images = dataset.collect("frequent_neighbors", lens="logitlens", layer=1, top=1000)
        examples = dataset.collect("examples", lens="logitlens", layer=1, top=1000)
    assert set(histogram.group_by("visual_layer").agg(pl.col("tokens").sum())["tokens"]) == {len(shown)}
    assert dict(frequent.select("word", "answers").iter_rows()) == {word: n for word, n in words.items() if word}
    assert by_layer["patches"].sum() == sum(layers.values())
    tokens = {(row["image_id"], row["token_index"], (row["word"] or "").lower()) for row in answers if _of_one(row)}
    assert of_images["tokens"].sum() == len(tokens)
    assert set(examples.select("image_id", "token_index").rows()) == shown


def _of_one(row: Row) -> bool:
    return bool(row["visual_layer"] == 1)


def _a_word(words: Counter[str]) -> str:
    return next(word for word, _ in words.most_common() if word.isascii() and word.isalpha())


def _as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps as the version before had them: padding counts, and nobody asks where tokens lie."""
    nothing = {"counted_settings": {}, "counted_keys": [], "files_without_padding": []}
    for name, value in nothing.items():
        monkeypatch.setattr(assets, name, lambda *_, found=value: found)
    blank = pl.DataFrame(schema={"image_id": pl.String, "token_index": pl.Int32})
    monkeypatch.setattr(assets, "stored_blank_tokens", lambda *_: blank)


def _bytes(project: Path) -> dict[str, bytes]:
    home = Warehouse(project / ".latentlens" / "warehouse")
    return {name: home.summary("tiny", name).read_bytes() for name in SUMMARIES}


def test_a_home_without_padding_of_the_version_before_computes_nothing_again_and_would_give_the_same_bytes(
    built_project: Path, copy_of: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    project = copy_of(built_project)
    steps = [f"study/tiny/{name}" for name in SUMMARIES]
    with monkeypatch.context() as before:
        _as_before(before)
        build(project)
    counted = _bytes(project)
    assert counted == _bytes(built_project)
    with monkeypatch.context() as without:
        for name in ("answer_statistics.diversity", "answer_statistics.layer_alignment"):
            without.setattr(f"latentlens_dag.study.{name}", lambda *_: pytest.fail("it was computed"))
        without.setattr("latentlens_dag.study.state_statistics.state_statistics", lambda *_: pytest.fail("computed"))
        assert sorted(build(project)) == steps
    assert build(project) == []
    assert _bytes(project) == counted
    assert sorted(build(project, names=steps, force=True)) == steps
    assert _bytes(project) == counted


def test_a_summary_of_another_algorithm_or_of_other_answers_is_computed_again(
    built_project: Path, copy_of: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    project, computed = copy_of(built_project), list[str]()
    with monkeypatch.context() as before:
        _as_before(before)
        before.setattr(assets, "_DIVERSITY", assets._DIVERSITY - 1)
        build(project)
    real = {"diversity": diversity, "layer_alignment": layer_alignment}
    for name, function in real.items():

        def counted(*given: Any, name: str = name, function: Callable[..., pa.Table] = function) -> pa.Table:
            computed.append(name)
            return function(*given)

        monkeypatch.setattr(f"latentlens_dag.study.answer_statistics.{name}", counted)
    build(project)
    assert computed == ["diversity"]
    with monkeypatch.context() as before:
        _as_before(before)
        build(project)
    computed.clear()
    file = project / "assets" / "tiny" / "defs.yaml"
    file.write_text(file.read_text().replace("top_k: 3", "top_k: 2"))
    build(project)
    assert sorted(computed) == ["diversity", "layer_alignment"]


def test_a_padded_home_of_the_version_before_computes_its_figures_again_and_encodes_nothing(
    padded: Path, copy_of: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    build(padded, names=["study/tiny/layer_alignment"], force=True)  # with all tokens in the null
    right, project = _bytes(padded), copy_of(padded)
    with monkeypatch.context() as before:
        _as_before(before)
        build(project)
    assert all(_bytes(project)[name] != right[name] for name in SUMMARIES)
    assert sorted(build(project)) == ["study/tiny/catalog", *(f"study/tiny/{name}" for name in SUMMARIES)]
    assert _bytes(project) == right
