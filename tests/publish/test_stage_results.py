from dataclasses import replace
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest

from latentlens_dag.dataset.dataset import open_dataset
from latentlens_dag.errors import UserError
from latentlens_dag.publish import card, tables
from latentlens_dag.publish.tables import RELEASE_IMAGES
from latentlens_dag.release.manifest import MANIFEST, manifest_text, read_manifest
from latentlens_dag.sql.views import DECLARED
from latentlens_dag.storage.hashing import text_id
from latentlens_dag.storage.warehouse import Warehouse
from tests.helpers import released
from tests.helpers.released import (
    ABOUT,
    GRID,
    LAYERS,
    TEXTS,
    contents,
    image_id,
    stage,
    write_shared,
    write_study,
    write_warehouse,
)


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    """Of three images; releases are staged into it, nothing else is changed."""
    return write_warehouse(tmp_path_factory.mktemp("released") / "warehouse")


@pytest.fixture(scope="module")
def staged(warehouse: Warehouse) -> Path:
    """A release of it, which stays as it is."""
    stage(warehouse, about=replace(ABOUT, name="staged"))
    return warehouse.release("staged")


def _folder(warehouse: Warehouse) -> Path:
    return warehouse.release("small")


def test_equal_content_gives_equal_bytes_wherever_and_however_it_lies(warehouse: Warehouse, tmp_path: Path) -> None:
    first = stage(warehouse)
    before = contents(_folder(warehouse))
    assert stage(warehouse) == first
    assert contents(_folder(warehouse)) == before
    other = write_warehouse(tmp_path / "elsewhere", batches=3)
    assert stage(other) == first
    assert contents(_folder(other)) == before


def test_the_manifest_tells_every_file_and_is_what_was_returned(warehouse: Warehouse) -> None:
    made = stage(warehouse)
    text = (_folder(warehouse) / MANIFEST).read_text()
    assert text == manifest_text(made)
    assert read_manifest(text.encode()) == made
    assert {file.path for file in made.files} | {MANIFEST} == set(contents(_folder(warehouse)))
    assert made.tables["neighbors"].rows == 3 * GRID * GRID * len(LAYERS) * 3 * 5


def test_no_file_says_where_it_was_made(warehouse: Warehouse, staged: Path) -> None:
    for path, content in contents(staged).items():
        assert str(warehouse.root).encode() not in content, path
        assert warehouse.root.parent.name.encode() not in content, path


@pytest.mark.parametrize("table", sorted(tables._ORDER.keys() - {"texts", "text_tokens", *DECLARED}))
def test_a_release_has_the_rows_of_the_warehouse_in_order(warehouse: Warehouse, staged: Path, table: str) -> None:
    order = tables._ORDER[table]
    files = sorted(staged.glob(f"{table}/**/*.parquet")) or [staged / f"{table}.parquet"]
    found = pl.concat([pl.DataFrame(pq.read_table(file)) for file in files])
    if table == "images":
        found = found.with_columns(pl.col("thumbnail").struct.field("bytes").alias("thumbnail"))
    with open_dataset(warehouse) as data:
        assert found.equals(pl.DataFrame(data.sql(f"FROM {table} ORDER BY {order}").to_arrow_table()))


def test_answers_lie_in_order_of_layer_lens_token_and_rank(staged: Path) -> None:
    for file in staged.glob("neighbors/one/*.parquet"):
        found = pl.read_parquet(file).select("image_id", "visual_layer", "lens", "token_index", "rank").rows()
        assert found == sorted(found)
        assert len(found) == GRID * GRID * len(LAYERS) * 3 * 5


def test_rows_of_one_image_are_files_of_their_own_while_there_are_few(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {f"{image_id(number)}.parquet" for number in range(3)}
    few, every = stage(warehouse), {"neighbors", "judgements", "visual_tokens", "images", "regions"}
    assert {(f.table, f.path.rpartition("/")[2]) for f in few.of(every)} == {(t, name) for t in every for name in names}
    monkeypatch.setattr(tables, "OWN_FILES", 2)
    many = stage(warehouse)
    assert {f.path.rpartition("/")[2] for f in many.of(every)} == {f"{name[:2]}.parquet" for name in names}
    assert many.tables == few.tables


def test_one_image_more_uploads_at_most_twice_its_own_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(released, "GRID", 12)  # a quarter of the patches that LLaVA-1.5 has of an image
    images = 7
    before, after = (write_warehouse(tmp_path / str(n), images=n) for n in (images, images + 1))
    stage(before), stage(after)
    old, new = contents(_folder(before)), contents(_folder(after))
    own = {path for path in new if image_id(images) in path}
    changed = {path for path in new if new[path] != old.get(path)}
    assert old.keys() == new.keys() - own
    assert len(own) == 5
    tables_of_studies = ("interpretability", "lens_differences", "corpus_ablation", "layer_alignment")
    tables_of_studies += ("diversity", "sinks")
    summaries = {f"{table}.parquet" for table in tables_of_studies}
    assert changed - own <= {"README.md", MANIFEST} | summaries
    assert sum(len(new[path]) for path in changed) <= 2 * sum(len(new[path]) for path in own)


def test_sentences_are_those_of_the_corpus_those_of_the_answers_or_none(warehouse: Warehouse) -> None:
    def sentences() -> dict[str, str]:
        files = sorted(_folder(warehouse).glob("sentences/*.parquet"))
        assert all(row[0][0] == file.stem for file in files for row in pl.read_parquet(file).rows())
        return dict(row for file in files for row in pl.read_parquet(file).rows())

    stage(warehouse, sentences="all")
    assert sentences() == {text_id(text): text for text in TEXTS}
    stage(warehouse, sentences="cited")
    assert sentences() == {text_id(text): text for text in TEXTS[:9]}
    assert "sentences" not in stage(warehouse, sentences="none").tables
    assert sentences() == {}


def test_without_leave_no_picture_goes_out(warehouse: Warehouse) -> None:
    stage(warehouse, thumbnails=False, about=replace(ABOUT, image_license=None))
    held = contents(_folder(warehouse))
    assert not any(b"WEBP" in content for content in held.values())
    assert "examples" not in held["README.md"].decode()
    for file in _folder(warehouse).glob("images/*.parquet"):
        assert pq.read_table(file)["thumbnail"].to_pylist() == [None]
        assert pq.read_table(file)["file_name"].null_count == 0


def test_an_example_is_small_and_of_the_image_with_the_lowest_id(staged: Path, tmp_path: Path) -> None:
    example = (staged / "examples" / "one.webp").read_bytes()
    assert 1000 < len(example) <= 60_000
    for number in range(3):
        alone = Warehouse(tmp_path / str(number))
        write_shared(alone, [[number]])
        write_study(alone, "one", [[number]])
        stage(alone)
        same = (_folder(alone) / "examples" / "one.webp").read_bytes() == example
        assert same == (image_id(number) == min(map(image_id, range(3))))


def test_the_library_datasets_knows_the_pictures(staged: Path) -> None:
    import datasets

    kinds = {field.name: datasets.Value(str(field.type)) for field in RELEASE_IMAGES if field.name != "thumbnail"}
    features = datasets.Features({**kinds, "thumbnail": datasets.Image()})
    assert features.arrow_schema.equals(RELEASE_IMAGES, check_metadata=True)
    for file in staged.glob("images/*.parquet"):
        assert pq.read_schema(file).metadata == RELEASE_IMAGES.metadata


def test_two_studies_share_their_images(tmp_path: Path) -> None:
    warehouse = write_warehouse(tmp_path / "two", images=2, batches=1)
    write_study(warehouse, "other", [[1]])
    made = stage(warehouse, "one", "other", sentences="cited")
    assert made.tables["images"].rows == 2
    assert made.tables["sentences"].rows == 9
    assert made.tables["regions"].rows == 2
    assert [f.path for f in made.of({"neighbors"})].count(f"neighbors/other/{image_id(1)}.parquet") == 1
    assert made.tables["visual_tokens"].rows == 3 * GRID * GRID
    summary = pl.read_parquet(_folder(warehouse) / "diversity.parquet")
    assert summary["study"].unique().sort().to_list() == ["one", "other"]


def test_named_queries_go_along_where_their_tables_do(tmp_path: Path, staged: Path) -> None:
    judged = {file.stem for file in (staged / "queries").iterdir()}
    assert judged >= {"token", "where_word", "interpretability"}
    assert not judged & {"text", "word_in_texts"}
    other = write_warehouse(tmp_path / "unjudged", images=1, batches=1, judged=False)
    made = stage(other)
    assert not {"interpretability", "judgements"} & made.tables.keys()
    assert not (_folder(other) / "queries" / "interpretability.sql").exists()


def test_a_release_that_fails_leaves_the_one_before(warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    stage(warehouse)
    before = contents(_folder(warehouse))

    def fail(*_: object) -> str:
        raise RuntimeError("no card")

    monkeypatch.setattr(card, "tables_card", fail)
    with pytest.raises(RuntimeError):
        stage(warehouse, sentences="none")
    assert contents(_folder(warehouse)) == before
    assert {path.name for path in _folder(warehouse).parent.iterdir()} <= {"small", "staged"}


def test_a_study_that_is_not_built_is_told(warehouse: Warehouse) -> None:
    with pytest.raises(UserError, match=r"Study another is not built to its end.*latentlens-dag build another"):
        stage(warehouse, "another")
