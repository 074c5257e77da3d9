"""A release opened from its folder: the same tables as in a home, of any schema version, whole or in part."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pyarrow as pa
import pytest
from click.testing import CliRunner

from latentlens_dag.cli.main import cli
from latentlens_dag.dataset.dataset import Dataset, open_dataset
from latentlens_dag.dataset.named_queries import named_queries
from latentlens_dag.errors import UserError
from latentlens_dag.release import manifest as release_manifest
from latentlens_dag.release.migrations import MIGRATIONS, Migration
from latentlens_dag.release.reader import schemas_at
from latentlens_dag.schema import TABLES
from latentlens_dag.sql.sandbox import ReadOnlyFolder
from latentlens_dag.storage.warehouse import Warehouse
from tests.helpers.small_dataset import ANIMALS, image_id, write_shared, write_study
from tests.helpers.small_release import Tables, release_tables, write_manifest, write_release

PARAMETERS = {
    "answer_words": {"layer": "8"},
    "disagreement": {"layer": "0", "other_layer": "8", "images": image_id("dog"), "top": "1"},
    "candidates": {"study": "one"},
    "captions": {"study": "one"},
    "categories": {"study": "one"},
    "corpus_ablation": {"study": "one", "layer": "8"},
    "examples": {"layer": "8", "contextual_layer": "2", "patch_group": "object"},
    "find_images": {"layer": "8", "words": "dog", "verdict": "concrete"},
    "frequent_neighbors": {"study": "one"},
    "frequent_words": {"study": "one", "layer": "8"},
    "geometry": {"study": "one", "source": "visual"},
    "image_answers": {"image_id": image_id("dog"), "layer": "8"},
    "interpretability": {"study": "one"},
    "layer_alignment": {"study": "one"},
    "layer_alignment_null": {"study": "one", "layer": "8"},
    "lens_differences": {"study": "one", "comparison": "layers"},
    "neighbor_overlap": {"study": "one", "other_study": "two"},
    "patches": {"image_id": image_id("dog"), "layer": "8"},
    "similarity_histogram": {"study": "one"},
    "sinks": {"study": "one"},
    "studies": {},
    "study_differences": {"study": "one", "other_study": "two"},
    "text": {"study": "one", "text_id": "x"},
    "training_steps": {"connector": "clip"},
    "token": {"study": "one", "image_id": image_id("dog"), "token_index": "0"},
    "where_word": {"word": "dog"},
    "where_words": {"words": "dog, tree"},
    "word_in_texts": {"word": "dog"},
    "words_by_layer": {"words": "dog, tree"},
}


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_release(tmp_path_factory.mktemp("releases") / "small")


@pytest.fixture
def copied(release: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(release, tmp_path / "copied"))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    """The same studies as the release's, in a home."""
    warehouse = Warehouse(tmp_path_factory.mktemp("home") / "warehouse")
    write_shared(warehouse, "pictures", "corpus", (ANIMALS[:2], ANIMALS[2:]))
    write_study(warehouse, "one", (ANIMALS,))
    write_study(warehouse, "two", (ANIMALS[:1],))
    return warehouse


def _rows(dataset: Dataset, table: str) -> list[str]:
    return sorted(map(str, dataset.sql(f"FROM {table}").fetchall()))


def test_a_release_has_the_tables_of_the_home_that_it_was_made_of(release: Path, home: Warehouse) -> None:
    with open_dataset(release) as opened, open_dataset(home) as built:
        assert opened.tables == built.tables == sorted(TABLES)
        for table in {*TABLES} - {"occurrences", "patch_truth"}:  # of an index; follows from the regions
            assert _rows(opened, table) == _rows(built, table), table
            assert opened.scan(table).collect_schema() == built.scan(table).collect_schema()
        assert not _rows(opened, "occurrences")


def test_a_picture_of_a_release_is_its_bytes(release: Path) -> None:
    with open_dataset(release) as opened:
        assert opened.sql("SELECT typeof(thumbnail), thumbnail FROM images LIMIT 1").fetchall() == [
            ("BLOB", b"thumbnail")
        ]
        assert opened.scan("images").collect()["thumbnail"].to_list() == [b"thumbnail"] * 4


@pytest.mark.parametrize("name", named_queries())
def test_every_named_query_answers_as_over_a_home(release: Path, home: Warehouse, name: str) -> None:
    with open_dataset(release) as opened, open_dataset(home) as built:
        asked = PARAMETERS[name]
        assert opened.collect(name, **asked).equals(built.collect(name, **asked))


ABOUT_AN_IMAGE = sorted(
    name for name, query in named_queries().items() if "image_id" in {p.name for p in query.parameters}
)


@pytest.mark.parametrize("stem", ["{}", "{:.2}", "part_{}"], ids=["an image a file", "digits", "names of its own"])
def test_a_query_about_an_image_opens_no_file_of_another_one(
    home: Warehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stem: str
) -> None:
    named = {animal: stem.format(image_id(animal)) for animal in ANIMALS}
    tables = {
        re.sub("/[0-9a-f]{16}$", lambda found: "/" + stem.format(found[0][1:]), path): table
        for path, table in release_tables().items()
    }
    folder, seen, local = write_release(tmp_path / "small", tables=tables), set(), ReadOnlyFolder._local

    def looked_for(mounted: ReadOnlyFolder, path: str) -> Path:
        seen.add(Path(path).stem if "neighbors" in path else "")
        return local(mounted, path)

    monkeypatch.setattr(ReadOnlyFolder, "_local", looked_for)
    with open_dataset(folder) as release, open_dataset(home) as built:
        seen.clear()
        for name in ABOUT_AN_IMAGE:
            asked = {**PARAMETERS[name], "image_id": image_id("dog")}
            assert release.collect(name, **asked).equals(built.collect(name, **asked)), name
    assert seen - {""} == (set(named.values()) if stem.startswith("part") else {named["dog"]})


@pytest.mark.parametrize(
    "query",
    [
        "FROM read_text('warehouse://manifest.json')",
        "FROM read_text('warehouse://README.md')",
        "FROM read_parquet('warehouse://hidden.parquet')",
        "FROM read_parquet('warehouse://h*.parquet')",
        "FROM read_parquet('warehouse://neighbors/../hidden.parquet')",
        "FROM read_text('{folder}/README.md')",
        "FROM read_text('/etc/hostname')",
    ],
)
def test_sql_reads_no_file_but_those_of_the_tables(copied: Path, query: str) -> None:
    shutil.copy(copied / "diversity.parquet", copied / "hidden.parquet")  # not in the manifest
    with open_dataset(copied) as opened:
        try:
            assert opened.collect(query.replace("{folder}", str(copied))).is_empty()  # as where there is no file
        except UserError as error:
            assert re.search("No files found|disabled by configuration", str(error))
        seen = {path.removeprefix("warehouse://") for (path,) in opened.sql("FROM glob('warehouse://**')").fetchall()}
    files = {file.relative_to(copied).as_posix() for file in copied.rglob("*.parquet")}
    assert seen == files - {"hidden.parquet"} and len(seen) > 20


def test_a_file_that_is_not_listed_cannot_be_opened(copied: Path) -> None:
    mounted = ReadOnlyFolder(copied, {"diversity.parquet"})

    assert mounted.open("warehouse://diversity.parquet").readable()
    for path in ("warehouse://README.md", "warehouse://regions/../README.md", "warehouse://../x", "warehouse://"):
        with pytest.raises(PermissionError):
            mounted.open(path)
        with pytest.raises(PermissionError):
            mounted.info(path)


def test_what_was_added_to_a_folder_later_is_not_in_its_tables(copied: Path) -> None:
    source = next((copied / "neighbors" / "one").glob("*.parquet"))
    shutil.copy(source, source.with_name("more.parquet"))

    with open_dataset(copied) as opened:
        assert opened.sql("SELECT count(*) FROM neighbors").fetchall() == [(300,)]


def test_a_table_that_was_not_pulled_says_how_to_pull_it(copied: Path) -> None:
    shutil.rmtree(copied / "sentences")

    with open_dataset(copied) as opened:
        assert "sentences" not in opened.tables
        told = r"Table sentences was not pulled: `latentlens-dag pull \S+ --tables sentences` fetches it"
        for ask in (opened.sql, opened.collect):
            with pytest.raises(UserError, match=told):
                ask("SELECT text FROM Sentences")
        with pytest.raises(UserError, match=told):
            opened.scan("sentences")
        with pytest.raises(UserError, match=told):
            opened.named("token", **PARAMETERS["token"])
        assert opened.collect("where_word", word="dog").height
        with pytest.raises(UserError, match="sentencez does not exist"):
            opened.sql("FROM sentencez")


def test_a_table_of_which_files_are_missing_is_not_read_in_part(copied: Path) -> None:
    next((copied / "neighbors" / "one").glob("*.parquet")).unlink()

    with open_dataset(copied) as opened, pytest.raises(UserError, match=r"\(4 of its 5 files are here\)"):
        opened.sql("FROM neighbors")


def test_the_command_line_asks_a_release_by_its_folder(release: Path, tmp_path: Path) -> None:
    def run(*arguments: str) -> str:
        result = CliRunner().invoke(cli, arguments, catch_exceptions=False)
        return result.output

    shown = run("query", "SELECT count(*) AS n FROM neighbors", "--data", str(release), "--format", "csv")
    assert shown.split() == ["n", "300"]
    assert "latentlens" in run("summary", "one", "--data", str(release))
    with pytest.raises(UserError, match="name two datasets"):
        run("query", "studies", "--data", str(release), "--home", str(tmp_path))
    with pytest.raises(UserError, match="Study 'three' has no figures here"):
        run("summary", "three", "--data", str(release))


def _older(tables: Tables) -> None:
    """As a version without the columns `word` and `share` would have made it; `share` was counted in percent."""
    for path, table in tables.items():
        if path.startswith("neighbors/"):
            tables[path] = table.drop("word")
        if path == "layer_alignment":
            percent = pa.array([100 * share for share in table["share"].to_pylist()])
            tables[path] = table.drop("share").append_column("percent", percent)


def _without(schema: pa.Schema, name: str) -> pa.Schema:
    return schema.remove(schema.get_field_index(name))


@pytest.fixture
def next_version(monkeypatch: pytest.MonkeyPatch) -> int:
    """As if today's schema came after an artificial one; gives the number of that one."""
    today = release_manifest.SCHEMA_VERSION
    shares = _without(TABLES["layer_alignment"], "share").append(pa.field("percent", pa.float64()))
    before = {"neighbors": _without(TABLES["neighbors"], "word"), "layer_alignment": shares}
    selects = {
        "neighbors": "SELECT *, trim(token_str) AS word FROM {older}",
        "layer_alignment": "SELECT * EXCLUDE (percent), percent / 100 AS share FROM {older}",
    }
    monkeypatch.setitem(MIGRATIONS, today, Migration(before, selects))
    monkeypatch.setattr(release_manifest, "SCHEMA_VERSION", today + 1)
    return today


def _set_version(folder: Path, version: int) -> None:
    manifest = folder / "manifest.json"
    now = f'"schema_version": {release_manifest.SCHEMA_VERSION}'
    text = manifest.read_text(encoding="utf-8")
    assert now in text
    manifest.write_text(text.replace(now, f'"schema_version": {version}'), encoding="utf-8")


def test_an_older_release_opens_as_if_it_had_been_made_today(release: Path, tmp_path: Path, next_version: int) -> None:
    older = write_release(tmp_path / "older", _older, version=next_version)
    _set_version(older, next_version)
    assert older.joinpath("manifest.json").read_text(encoding="utf-8").count('"word"') == 0
    today = Path(shutil.copytree(release, tmp_path / "today"))
    write_manifest(today)

    with open_dataset(older) as migrated, open_dataset(today) as opened:
        for table in TABLES:
            assert migrated.sql(f"DESCRIBE {table}").fetchall() == opened.sql(f"DESCRIBE {table}").fetchall()
        assert _rows(migrated, "neighbors") == _rows(opened, "neighbors")
        assert migrated.scan("neighbors").collect().columns == TABLES["neighbors"].names
        shares = "SELECT round(share, 9) FROM layer_alignment ORDER BY ALL"
        assert migrated.sql(shares).fetchall() == opened.sql(shares).fetchall() != []
        assert migrated.collect("where_word", word="dog").equals(opened.collect("where_word", word="dog"))


def test_an_older_release_with_the_columns_of_a_newer_one_is_refused(
    release: Path, tmp_path: Path, next_version: int
) -> None:
    mixed = Path(shutil.copytree(release, tmp_path / "mixed"))
    write_manifest(mixed)
    _set_version(mixed, next_version)

    with pytest.raises(UserError, match=f"of schema version {next_version}: it lacks the columns percent"):
        open_dataset(mixed)


def test_every_version_before_todays_has_its_migration_and_a_note() -> None:
    assert sorted(MIGRATIONS) == list(range(1, release_manifest.SCHEMA_VERSION))
    assert all(one.note and one.before.keys() == one.selects.keys() for one in MIGRATIONS.values())
    today = schemas_at(release_manifest.SCHEMA_VERSION)
    assert {name: schema.names for name, schema in today.items()} == {
        name: schema.names for name, schema in TABLES.items()
    }


def test_a_release_of_an_index_says_what_opens_it(copied: Path) -> None:
    manifest = copied / "manifest.json"
    text = manifest.read_text(encoding="utf-8").replace('"kind": "tables"', '"kind": "index"')
    manifest.write_text(text, encoding="utf-8")

    with pytest.raises(UserError, match=r"is an index, not tables: open it with `ContextualIndex\.open`"):
        open_dataset(copied)


def test_a_release_of_the_same_tables_is_the_same_bytes(release: Path, tmp_path: Path) -> None:
    again = write_release(tmp_path / "again", tables=release_tables())

    assert (again / "manifest.json").read_bytes() == (release / "manifest.json").read_bytes()
