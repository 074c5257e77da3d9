from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pyarrow as pa
import pytest

from latentlens_dag.dataset.dataset import Dataset, open_dataset
from latentlens_dag.dataset.named_queries import named_queries
from latentlens_dag.dataset.study_catalog import write_catalog
from latentlens_dag.errors import UserError
from latentlens_dag.schema import DECLARED_LENSES, IMAGES, NEIGHBORS, TABLES, TEXT_TOKENS, TEXTS
from latentlens_dag.storage.files import write_json
from latentlens_dag.storage.hashing import text_id
from latentlens_dag.storage.parquet import write_parquet
from latentlens_dag.storage.warehouse import Warehouse
from tests.helpers.small_dataset import (
    ANIMALS,
    AWKWARD,
    SENTENCES_OF,
    image_id,
    images,
    neighbors,
    visual_tokens,
    write_shared,
    write_study,
    write_warehouse,
)


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    """A home's warehouse, in a folder whose name needs escaping, with the catalogs of both studies."""
    folder = tmp_path_factory.mktemp("home")
    warehouse = write_warehouse(folder / "a [b] 'c' *" / "warehouse")
    matches_the_name_as_a_pattern = Warehouse(folder / "a b 'c' decoy" / "warehouse")
    write_shared(matches_the_name_as_a_pattern, "pictures", "corpus", (ANIMALS[:1],))
    write_study(matches_the_name_as_a_pattern, "one", (ANIMALS[:1],))
    for study in ("one", AWKWARD):
        write_catalog(warehouse, study, warehouse.catalog(study))
    return warehouse


@pytest.fixture(scope="module", params=["warehouse", "catalog"])
def dataset(request: pytest.FixtureRequest, warehouse: Warehouse) -> Iterator[Dataset]:
    """The same study, through the warehouse and through its catalog."""
    with open_dataset(warehouse if request.param == "warehouse" else warehouse.catalog("one")) as opened:
        yield opened


def rows(relation: duckdb.DuckDBPyRelation) -> list[dict[str, Any]]:
    return relation.pl().to_dicts()


def test_every_table_is_a_view_with_the_columns_of_its_schema(dataset: Dataset) -> None:
    assert dataset.tables == sorted(TABLES)
    for name, schema in TABLES.items():
        assert dataset.sql(f"FROM {name}").columns == schema.names
        assert dataset.scan(name).collect_schema().names() == schema.names


def test_sql_and_scan_give_what_was_written(dataset: Dataset) -> None:
    expected = pl.concat(
        pl.DataFrame(neighbors("one", ANIMALS, lens, layer)) for lens in DECLARED_LENSES for layer in (0, 8)
    ).sort(KEYS)
    for found in (
        dataset.sql("FROM neighbors WHERE study = $study", study="one").pl(),
        dataset.scan("neighbors").filter(pl.col("study") == "one").collect(),
    ):
        assert found.sort(KEYS).equals(expected)


KEYS = ["lens", "visual_layer", "image_id", "token_index", "rank"]


def test_what_is_not_built_yet_is_an_empty_table_of_the_right_types(tmp_path: Path, warehouse: Warehouse) -> None:
    (tmp_path / "warehouse").mkdir()
    with open_dataset(tmp_path) as empty, open_dataset(warehouse) as full:
        assert empty.tables == sorted([*TABLES, "human_judgements"])
        for name in TABLES:
            assert empty.scan(name).collect().is_empty()
            assert empty.sql(f"FROM {name}").types == full.sql(f"FROM {name}").types
        for name, query in named_queries().items():
            needed = {parameter.name: "0" for parameter in query.parameters if parameter.required}
            assert empty.named(name, **needed).fetchall() == []


def test_a_home_is_opened_by_its_warehouse_and_anything_else_is_refused(warehouse: Warehouse, tmp_path: Path) -> None:
    with open_dataset(str(warehouse.root.parent)) as opened:
        assert len(opened.scan("images").collect()) == 4
    (tmp_path / "text.duckdb").write_text("not a database")
    for wrong in (tmp_path, tmp_path / "none", tmp_path / "text.duckdb"):
        with pytest.raises(UserError, match=re.escape(str(wrong))):
            open_dataset(wrong)


def test_an_image_or_sentence_of_two_sets_is_one_row(tmp_path: Path) -> None:
    warehouse = Warehouse(tmp_path / "warehouse")
    write_shared(warehouse, "first", "one", (ANIMALS,))
    write_shared(warehouse, "second", "two", (ANIMALS[:3],))
    write_study(warehouse, "s", (ANIMALS,))
    write_catalog(warehouse, "s", tmp_path / "c.duckdb", index="one_index")
    for source in (warehouse, tmp_path / "c.duckdb"):
        with open_dataset(source) as opened:
            for table, count in (("images", 4), ("regions", 8), ("sentences", len(SENTENCES_OF))):
                assert opened.sql(f"SELECT count(*) FROM {table}").fetchall() == [(count,)]
                assert len(opened.scan(table).collect()) == count
            assert opened.sql("SELECT DISTINCT index FROM occurrences ORDER BY 1").fetchall()[0] == ("one_index",)


REFUSED = {
    "COPY neighbors TO '{inside}'": "read-only",
    "COPY neighbors TO '{outside}'": "read-only",
    "EXPLAIN ANALYZE COPY neighbors TO '{inside}'": "read-only",
    "WITH x AS (COPY (SELECT 1) TO '{inside}') FROM x": "Permission",
    "WITH x AS (COPY (SELECT 1) TO 'warehouse://study/x.csv') FROM x": "Permission",
    "FROM json_execute_serialized_sql(json_serialize_sql("
    "'WITH x AS (COPY (SELECT 1) TO ''{nested}'') FROM x'))": "Permission",
    "FROM json_execute_serialized_sql(json_serialize_sql("
    "'WITH x AS (COPY (SELECT 1) TO ''warehouse://x.csv'') FROM x'))": "Permission",
    "FROM read_csv('/etc/passwd')": "Permission",
    "FROM '/etc/passwd'": "Permission|does not exist",
    "FROM read_text('{file}')": "Permission",
    "FROM read_text('warehouse://../../secret.txt')": "outside the dataset|Permission",
    "FROM read_text('warehouse://study/../../../secret.txt')": "outside the dataset|Permission",
    "FROM glob('/etc/*')": "Permission",
    "FROM glob('**')": "Permission",
    "FROM read_csv('{file}')": "Permission",
    "FROM read_json('{file}')": "Permission",
    "FROM read_blob('{file}')": "Permission",
    "FROM sniff_csv('{file}')": "Permission",
    "FROM '{table}'": "Permission",
    "FROM read_parquet('{table}')": "Permission",
    "FROM parquet_metadata('{table}')": "Permission",
    "FROM query_table('{table}')": "Permission",
    "FROM query('COPY (SELECT 1) TO ''{nested}''')": "single SELECT",
    "FROM read_duckdb('{outside}')": "Permission",
    "FROM 'https://example.com/x.parquet'": "Permission",
    "FROM read_csv('http://127.0.0.1:9/x.csv')": "Permission",
    "FROM read_parquet('s3://bucket/x.parquet')": "Permission",
    "FROM read_parquet('hf://datasets/user/name/x.parquet')": "Permission",
    "SELECT getenv('HOME')": "getenv does not exist",
    "FROM duckdb_secrets()": "Permission",
    "COPY images FROM '{file}'": "read-only",
    "INSERT INTO images SELECT * FROM images": "read-only",
    "UPDATE images SET width = 1": "read-only",
    "DELETE FROM images": "read-only",
    "DROP VIEW images": "read-only",
    "CREATE OR REPLACE VIEW images AS SELECT 1": "read-only",
    "CREATE TEMP TABLE x AS SELECT 1": "read-only",
    "CREATE MACRO x() AS 1": "read-only",
    "CREATE SECRET x (TYPE s3)": "read-only",
    "PRAGMA database_list": "read-only",
    "CALL pragma_version()": "read-only",
    "RESET memory_limit": "read-only",
    "SET memory_limit = '9GB'": "read-only",
    "USE memory": "read-only",
    "DETACH memory": "read-only",
    "IMPORT DATABASE '{outside}'": "read-only",
    "UPDATE EXTENSIONS": "read-only",
    "FORCE INSTALL httpfs": "read-only",
    "FROM enable_profiling()": "locked",
    "ATTACH ':memory:' AS x": "read-only",
    "ATTACH '{outside}'": "read-only",
    "ATTACH '{inside}'": "read-only",
    "FROM enable_logging('QueryLog', storage = 'file', storage_path = '{inside}')": "locked",
    "INSTALL httpfs": "read-only",
    "LOAD httpfs": "read-only",
    "SET enable_external_access = true": "read-only",
    "CREATE TABLE x AS SELECT 1": "read-only",
    "EXPORT DATABASE '{outside}'": "read-only",
    "FROM neighbors; COPY neighbors TO '{inside}'": "one statement",
    "PIVOT neighbors ON lens USING count(*)": "Spell out the columns",
    "": "one statement",
}


@pytest.mark.parametrize("query", REFUSED)
def test_sql_cannot_write_nor_read_anything_but_the_dataset(dataset: Dataset, warehouse: Warehouse, query: str) -> None:
    home = warehouse.root.parent
    (home / "secret.txt").write_text("secret")
    write_parquet(images(ANIMALS[:1]), home / "secret.parquet", IMAGES)
    places = {"inside": warehouse.root / "x.csv", "outside": home / "x.csv", "file": home / "secret.txt"}
    places["table"] = home / "secret.parquet"
    quoted = {name: str(path).replace("'", "''") for name, path in places.items()}
    text = query.format(**quoted, nested=quoted["inside"].replace("'", "''"))
    before = sorted(home.rglob("*"))
    with pytest.raises((UserError, duckdb.Error), match=REFUSED[query]):
        dataset.sql(text).fetchall()
    assert sorted(home.rglob("*")) == before


def test_of_a_warehouse_sql_sees_the_files_of_its_tables_and_no_others(warehouse: Warehouse) -> None:
    write_json({"path": "/home"}, warehouse.observed("pictures"))
    with open_dataset(warehouse) as opened:
        seen = {path.removeprefix("warehouse://") for (path,) in opened.sql("FROM glob('warehouse://**')").fetchall()}
        assert opened.sql("FROM read_text('warehouse://observed/*')").fetchall() == []  # as where there is no file
    files = {path.relative_to(warehouse.root).as_posix() for path in warehouse.root.rglob("*.parquet")}
    assert seen == {file for file in files if "/chance_patches/" not in file} < files  # which are no table


@pytest.mark.parametrize("mode", ["w", "wb", "ab", "r+b", "xb"])
def test_the_mounted_folder_itself_opens_nothing_for_writing(tmp_path: Path, mode: str) -> None:
    from latentlens_dag.sql.sandbox import ReadOnlyFolder

    (tmp_path / "a").write_text("a")
    with pytest.raises(PermissionError, match="read-only"):
        ReadOnlyFolder(tmp_path).open("warehouse://a", mode)
    assert ReadOnlyFolder(tmp_path).open("warehouse://a").read() == b"a"


def test_a_link_inside_the_folder_is_followed_as_in_a_cache_of_the_hub(warehouse: Warehouse, tmp_path: Path) -> None:
    (tmp_path / "warehouse/study").mkdir(parents=True)
    (tmp_path / "warehouse/study/one").symlink_to(warehouse.study("one"))
    with open_dataset(tmp_path) as linked:
        assert len(linked.sql("FROM visual_tokens").pl()) == 20


@pytest.mark.parametrize(
    "query", ["FROM nothing", "SELEKT 1", "SELECT nothing FROM neighbors", "FROM neighbors WHERE word = $w"]
)
def test_a_mistake_in_sql_is_told_in_one_line_with_the_query(dataset: Dataset, query: str) -> None:
    with pytest.raises(UserError) as caught:
        dataset.sql(query)
    assert "\n" not in str(caught.value) and query in str(caught.value)


@pytest.mark.parametrize("value", ["dog", "' OR true --", 'a"b', "$word", "%"])
def test_values_are_bound_never_pasted(dataset: Dataset, value: str) -> None:
    found = dataset.sql("SELECT $word AS word, count(*) AS n FROM neighbors WHERE word = $word", word=value).fetchall()
    assert found[0][0] == value and (found[0][1] > 0) == (value == "dog")
    assert (len(dataset.named("where_word", word=value).fetchall()) > 0) == (value == "dog")


def test_every_query_has_a_title_a_description_and_uses_all_its_parameters() -> None:
    wanted = {"interpretability", "where_word", "layer_alignment", "frequent_neighbors", "token", "studies"}
    assert wanted <= set(named_queries())
    for query in named_queries().values():
        assert query.title and query.description.endswith(".")
        code = "\n".join(line for line in query.sql.splitlines() if not line.startswith("--"))
        assert set(re.findall(r"\$(\w+)", code)) == {parameter.name for parameter in query.parameters}
        assert all(parameter.description for parameter in query.parameters)


def test_where_word_tells_images_layers_and_patches_and_takes_numbers_as_text(dataset: Dataset) -> None:
    found = rows(dataset.named("where_word", word="GRASS", lens="latentlens", layer="8", study="one"))
    assert [(row["image_id"], row["patches"], row["token_indices"]) for row in found] == sorted(
        (image_id(animal), 4, [1, 2, 3, 4]) for animal in ANIMALS
    )
    assert {row["file_name"] for row in found} == {f"{animal}.png" for animal in ANIMALS}


def test_interpretability_has_a_column_per_lens(dataset: Dataset) -> None:
    found = rows(dataset.named("interpretability", study="one", patch_group="object", measure="concrete"))
    assert [row["visual_layer"] for row in found] == [0, 8]
    assert {(row["latentlens"], row["logitlens"], row["latentlens_chance"]) for row in found} == {(100.0, 0.0, 0.0)}
    first = rows(dataset.named("interpretability", study="one", patch_group="object", measure="concrete", k="1"))
    assert first == found  # the nearest is right, the second is not
    of_second = dataset.named("interpretability", study="one", patch_group="object", measure="global", k=2)
    assert {row["logitlens"] for row in rows(of_second)} == {100.0}


def test_layer_alignment_has_a_column_per_contextual_layer_and_then_those_of_the_null(dataset: Dataset) -> None:
    found = rows(dataset.named("layer_alignment", study="one"))
    null = rows(dataset.named("layer_alignment_null", study="one"))
    names = ("null_share", "null_low", "null_high")
    beside = {f"{layer}_{name}": row[name] for name in names for layer in (2, 4) for row in null if _is_of(row, layer)}
    assert found == [{"study": "one", "visual_layer": layer, "2": 0.5, "4": 0.5, **beside} for layer in (0, 8)]
    assert [*found[0]] == [
        "study",
        "visual_layer",
        "2",
        "4",
        *(f"{layer}_{name}" for name in names for layer in (2, 4)),
    ]


def _is_of(row: dict[str, Any], contextual_layer: int) -> bool:
    return (row["visual_layer"], row["contextual_layer"]) == (8, contextual_layer)


def test_interpretability_has_every_figure_of_the_table_in_percent(dataset: Dataset) -> None:
    own = {"study": "one", "patch_group": "object", "measure": "global"}
    stored = {(row["visual_layer"], row["lens"]): row for row in rows(dataset.sql(_SHARES, **own))}
    found = rows(dataset.named("interpretability", **own))
    assert len(found) * len(DECLARED_LENSES) == len(stored) == 6
    for (layer, lens), row in stored.items():
        (shown,) = [one for one in found if one["visual_layer"] == layer]
        for name in ("low", "high", "chance", "chance_low", "chance_high", "excess", "excess_low", "excess_high"):
            assert shown[f"{lens}_{name}"] == (None if row[name] is None else round(100 * row[name], 1))
        assert (shown[lens], shown[f"{lens}_images"]) == (round(100 * row["share"], 1), row["images"])
        assert shown[f"{lens}_effective_tokens"] == round(row["effective_tokens"], 1)


_SHARES = """
FROM interpretability WHERE study = $study AND patch_group = $patch_group AND measure = $measure AND k = 2"""


def test_the_null_stands_beside_the_layer_alignment_with_interval_and_difference(dataset: Dataset) -> None:
    found = rows(dataset.named("layer_alignment_null", study="one", layer="8"))
    shares = [tuple(row[name] for name in ("contextual_layer", "share", "null_share", "difference")) for row in found]
    assert shares == [(2, 0.5, 1.0, -0.5), (4, 0.5, 0.0, 0.5)]
    assert all(row["null_low"] <= row["null_share"] <= row["null_high"] for row in found)
    assert {row["null_tokens"] for row in found} == {20}


def test_the_geometry_has_a_row_for_each_source_and_layer(dataset: Dataset) -> None:
    found = rows(dataset.named("geometry", study="one"))
    assert [(row["source"], row["layer"]) for row in found] == [
        *(("visual", layer) for layer in (0, 8)),
        *(("contextual", layer) for layer in (2, 4)),
    ]
    assert {(row["hub_word"], row["top_dimension"], row["even_share"]) for row in found} == {("grass", 3, 0.125)}
    assert len(rows(dataset.named("geometry", study="one", source="contextual"))) == 2


def test_frequent_neighbors_ranks_the_words_of_each_image(dataset: Dataset) -> None:
    found = rows(dataset.named("frequent_neighbors", study="one", image_id=image_id("dog"), top=2))
    assert [(row["place"], row["word"], row["tokens"]) for row in found] == [(1, "tree", 8), (2, "grass", 6)]


def test_frequent_words_counts_the_answers_of_all_images(dataset: Dataset) -> None:
    found = rows(dataset.named("frequent_words", study="one", layer=8, top=3))
    assert [(row["word"], row["answers"]) for row in found] == [("tree", 16), ("grass", 12), ("cat", 1)]


def test_token_tells_answers_with_sentence_and_verdict(dataset: Dataset) -> None:
    place = {"image_id": image_id("owl"), "token_index": 0, "study": "one"}
    found = rows(dataset.named("token", **place, lens="latentlens", layer=0))
    told = [(row["rank"], row["word"], row["sentence"], row["verdict"], row["earned"]) for row in found]
    assert told == [(1, "owl", "A owl is here.", "concrete", True), (2, "tree", "A tree is here.", "concrete", False)]
    assert len(dataset.named("token", **place).fetchall()) == 12


def test_studies_lists_what_there_is(warehouse: Warehouse) -> None:
    with open_dataset(warehouse) as opened:
        found = rows(opened.named("studies"))
    assert [(row["study"], row["images"], row["visual_tokens"], row["answers"]) for row in found] == [
        (AWKWARD, 1, 5, 60),
        ("one", 4, 20, 240),
    ]
    assert found[1]["visual_layers"] == [0, 8] and found[1]["lenses"] == sorted(DECLARED_LENSES)


def test_mistakes_with_named_queries_name_the_right_ones(dataset: Dataset) -> None:
    with pytest.raises(UserError, match=r"no query 'where'; there are answer_words.*where_word"):
        dataset.named("where")
    with pytest.raises(UserError, match=r"needs word \(the word, in any case\)"):
        dataset.named("where_word")
    with pytest.raises(UserError, match="no parameter layers; it has word, lens, layer, study"):
        dataset.named("where_word", word="dog", layers=3)
    with pytest.raises(UserError, match="Could not convert string 'x' to INT32"):
        dataset.collect("where_word", word="dog", layer="x")
    with pytest.raises(
        UserError, match=r"'where_wrd' is no query; there are .*where_word.* Nor is it SQL: Parser Error"
    ):
        dataset.query("where_wrd")
    with pytest.raises(UserError, match=r"^Catalog Error"):
        dataset.query("FROM nowhere")


def test_query_takes_a_name_or_sql(dataset: Dataset) -> None:
    assert (
        dataset.query("studies").fetchall() == dataset.named("studies").fetchall() == dataset.collect("studies").rows()
    )
    assert dataset.query("SELECT 1 + $n", n=1).fetchall() == [(2,)]


def test_scan_of_an_unknown_table_names_the_tables(dataset: Dataset) -> None:
    with pytest.raises(
        UserError, match="no table 'neighbours'; there are candidates, caption_objects, caption_scores, captions"
    ):
        dataset.scan("neighbours")


def test_a_catalog_holds_one_study_and_what_it_refers_to(warehouse: Warehouse) -> None:
    with open_dataset(warehouse.catalog(AWKWARD)) as opened:
        counts = {table: len(opened.scan(table).collect()) for table in opened.tables}
        assert counts["neighbors"] == 60 and counts["visual_tokens"] == 5 and counts["images"] == 1
        assert counts["regions"] == 2 and counts["interpretability"] == 18 * 2 * 4 and counts["diversity"] == 6
        sentences = set(opened.scan("sentences").collect()["sentence_id"])
        assert sentences == {text_id(SENTENCES_OF[word]) for word in ("dog", "grass", "tree")}
        assert counts["occurrences"] == 3
        assert opened.sql("SELECT DISTINCT study FROM neighbors").fetchall() == [(AWKWARD,)]


def test_a_catalog_is_replaced_whole_and_leaves_nothing_beside_it(warehouse: Warehouse, tmp_path: Path) -> None:
    path = tmp_path / "it's.duckdb"
    for _ in range(2):
        write_catalog(warehouse, "one", path)
    assert list(tmp_path.iterdir()) == [path]


def test_a_catalog_of_no_study_names_the_studies(warehouse: Warehouse, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no results of study 'two'; it has .*one"):
        write_catalog(warehouse, "two", tmp_path / "c.duckdb")
    assert list(tmp_path.iterdir()) == []


def test_new_files_are_seen_when_opened_again_and_half_written_ones_never(tmp_path: Path) -> None:
    warehouse = Warehouse(tmp_path / "warehouse")
    write_parquet(images(ANIMALS[:1]), warehouse.pictures("set", 0), IMAGES)
    with open_dataset(warehouse) as opened:
        write_parquet(images(ANIMALS[1:]), warehouse.pictures("set", 1), IMAGES)
        warehouse.pictures("set", 1).with_name(".batch_02.parquet.1.tmp").write_text("half")
        assert opened.sql("SELECT count(*) FROM images").fetchall() == [(1,)]
    with open_dataset(warehouse) as opened:
        assert opened.sql("SELECT count(*) FROM images").fetchall() == [(4,)]


def test_a_table_rewritten_while_it_is_open_is_read_anew(tmp_path: Path) -> None:
    warehouse = Warehouse(tmp_path / "warehouse")
    path = warehouse.neighbors("s", "logitlens", 0, 0)
    for words in (("dog",), ("cat", "owl")):
        rows_of = [{**dict.fromkeys(NEIGHBORS.names), "word": word} for word in words]
        write_parquet(pa.Table.from_pylist(rows_of, schema=NEIGHBORS), path)
        os.utime(path, (len(words), len(words)))
        if words == ("dog",):
            opened = open_dataset(warehouse)
        assert [word for (word,) in opened.sql("SELECT word FROM neighbors ORDER BY word").fetchall()] == list(words)
    opened.close()


def test_a_file_that_is_gone_is_named_and_read_again_when_it_is_back(tmp_path: Path) -> None:
    warehouse = write_warehouse(tmp_path / "warehouse")
    path = warehouse.neighbors("one", "latentlens", 8, 1)
    with open_dataset(warehouse) as opened:
        before = opened.collect("where_word", word="owl")
        path.rename(tmp_path / "elsewhere")
        with pytest.raises(UserError, match=rf"{path} is gone since this was opened"):
            opened.collect("where_word", word="owl")
        (tmp_path / "elsewhere").rename(path)
        assert opened.collect("where_word", word="owl").equals(before)


def test_threads_share_a_dataset(dataset: Dataset) -> None:
    found: list[int] = []

    def count() -> None:
        found.extend(len(dataset.sql("FROM neighbors WHERE study = 'one'").fetchall()) for _ in range(5))

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [240] * 20


def test_a_process_that_reads_a_dataset_ends_silently_and_loads_neither_torch_nor_dagster(warehouse: Warehouse) -> None:
    code = (
        "import sys\nfrom latentlens_dag.dataset.dataset import open_dataset\n"
        f"data = open_dataset({str(warehouse.root)!r})\nassert data.sql('FROM neighbors').pl().height == 300\n"
        "assert not {'torch', 'dagster', 'streamlit'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_catalog_holds_the_texts_that_its_study_reads_and_no_others(tmp_path: Path) -> None:
    house, ids = Warehouse(tmp_path / "warehouse"), ("0" * 16, "1" * 16)
    for name, said in (("first", ids), ("second", ids[:1])):
        write_parquet(pa.table([said, said], schema=TEXTS), house.texts(name, 0), TEXTS)
    rows = [dict(zip(TEXT_TOKENS.names, ("s", ids[0], 0, 0, 7, " dog", "dog", 0, 3), strict=True))]
    write_parquet(pa.Table.from_pylist(rows, schema=TEXT_TOKENS), house.text_tokens("s", 0), TEXT_TOKENS)
    tokens = visual_tokens("s", ("dog",))
    write_parquet(tokens, house.visual_tokens("s", 0), tokens.schema)
    write_catalog(house, "s", tmp_path / "c.duckdb")
    for source, there in ((house, ids), (tmp_path / "c.duckdb", ids[:1])):
        with open_dataset(source) as opened:
            assert [row[0] for row in opened.sql("FROM texts ORDER BY 1").fetchall()] == list(there)


@pytest.mark.parametrize(("shape", "there"), [(None, 1), ({"of": "texts"}, 1), ({}, 0)])
def test_tokens_of_texts_are_those_of_a_study_that_still_reads_texts(
    tmp_path: Path, shape: dict[str, Any] | None, there: int
) -> None:
    house = Warehouse(tmp_path / "warehouse")
    rows = [dict(zip(TEXT_TOKENS.names, ("s", "0" * 16, 0, 0, 7, " dog", "dog", 0, 3), strict=True))]
    write_parquet(pa.Table.from_pylist(rows, schema=TEXT_TOKENS), house.text_tokens("s", 0), TEXT_TOKENS)
    if shape is not None:
        write_json({"parts": 1, "visual_layers": [0], "lenses": [], **shape}, house.shape("study", "s"))
    with open_dataset(house) as opened:
        assert len(opened.sql("FROM text_tokens").fetchall()) == there
