"""How far two studies give the same answers, against the plain definition."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from latentlens_dag.dataset.dataset import Dataset, open_dataset
from latentlens_dag.storage.warehouse import Warehouse
from tests.helpers.released import GRID, write_warehouse


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dataset]:
    """A study of random answers, and another whose first three answers are those of the first study."""
    warehouse = write_warehouse(tmp_path_factory.mktemp("overlap") / "warehouse", 2)
    [study] = [folder.name for folder in (warehouse.root / "study").iterdir()]
    other = Warehouse(warehouse.root).study("other")
    for file in sorted(warehouse.study(study).rglob("*.parquet")):
        table = pq.read_table(file)
        if "study" not in table.schema.names:
            continue
        table = table.set_column(0, "study", pa.array(["other"] * len(table)))
        if "rank" in table.schema.names:
            table = _changed(table)
        out = other / file.relative_to(warehouse.study(study))
        out.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, out)
    with open_dataset(warehouse.root) as opened:
        yield opened


def _changed(table: pa.Table) -> pa.Table:
    """The answers with another one at rank 2, the words in capitals, and without ranks 4 and 5."""
    frame = pl.DataFrame(table).filter(pl.col("rank") <= 3)
    second = pl.col("rank") == 2
    frame = frame.with_columns(
        token_id=pl.when(second).then(-1).otherwise("token_id").cast(pl.Int32),
        word=pl.when(second).then(pl.lit("none of these")).otherwise(pl.col("word").str.to_uppercase()),
        sentence_id=pl.when(second & pl.col("sentence_id").is_not_null()).then(pl.lit("none")).otherwise("sentence_id"),
    )
    return frame.to_arrow().cast(table.schema)


def _slow(rows: pl.DataFrame, studies: tuple[str, str], column: str) -> dict[tuple[str, int], float]:
    """Of each lens and layer, the mean percentage of the nearest three answers that both have, as multisets."""
    answers: dict[tuple[Any, ...], Counter[object]] = defaultdict(Counter)
    for row in rows.filter(pl.col("rank") <= 3).to_dicts():
        key = (row["lens"], row["visual_layer"], row["image_id"], row["token_index"])
        value = row[column].lower() if column == "word" else row[column]
        answers[(row["study"], *key)][value] += 1
    shares: dict[tuple[str, int], list[float]] = defaultdict(list)
    for _, lens, layer, image, token in [key for key in answers if key[0] == studies[0]]:
        one, two = (answers[(study, lens, layer, image, token)] for study in studies)
        if None not in one:
            shares[(lens, layer)].append(100 * (one & two).total() / 3)
    return {key: round(fmean(values), 1) for key, values in shares.items()}


def test_the_overlap_is_the_mean_share_of_common_answers_of_as_many_as_both_have(dataset: Dataset) -> None:
    rows = dataset.sql("FROM neighbors").pl()
    [study] = set(rows["study"]) - {"other"}
    for pair in ((study, "other"), ("other", study)):
        found = dataset.collect("neighbor_overlap", study=pair[0], other_study=pair[1])
        assert found["tokens"].unique().to_list() == [2 * GRID * GRID]
        for column in ("token_id", "word", "sentence_id"):
            expected = _slow(rows, pair, column)
            name = {"token_id": "token_percent", "word": "word_percent", "sentence_id": "sentence_percent"}[column]
            got = {(row["lens"], row["visual_layer"]): row[name] for row in found.to_dicts() if row[name] is not None}
            assert got == pytest.approx(expected, abs=0.1)
            assert got
    assert found.filter(pl.col("lens") != "latentlens")["sentence_percent"].null_count() == len(found) - 2


def test_the_overlap_may_be_asked_of_one_lens_and_layer(dataset: Dataset) -> None:
    study = next(iter(set(dataset.sql("SELECT DISTINCT study FROM neighbors").pl()["study"]) - {"other"}))
    every = dataset.collect("neighbor_overlap", study="other", other_study=study)
    one = dataset.collect("neighbor_overlap", study="other", other_study=study, lens="logitlens", layer="4")
    assert one.equals(every.filter(lens="logitlens", visual_layer=4))
    assert len(one) == 1


def test_tokens_of_another_place_of_the_image_are_not_compared(tmp_path: Path) -> None:
    warehouse = write_warehouse(tmp_path / "warehouse", 2)
    [study] = [folder.name for folder in (warehouse.root / "study").iterdir()]
    for name in ("visual_tokens", "latentlens"):
        for file in sorted((warehouse.study(study) / name).rglob("*.parquet")):
            table = pq.read_table(file).set_column(0, "study", pa.array(["other"] * pq.read_metadata(file).num_rows))
            if name == "visual_tokens":
                moved = pc.add(table["x0"], pc.if_else(pc.equal(table["token_index"], 0), 1.0, 0.0)).cast("float32")
                table = table.set_column(table.schema.get_field_index("x0"), "x0", moved)
            out = warehouse.study("other") / file.relative_to(warehouse.study(study))
            out.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(table, out)
    with open_dataset(warehouse.root) as opened:
        found = opened.collect("neighbor_overlap", study=study, other_study="other")
    assert found["tokens"].to_list() == [2 * (GRID * GRID - 1)] * 2
    assert found["token_percent"].to_list() == [100.0] * 2
