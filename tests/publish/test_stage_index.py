import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest

from latentlens_dag.errors import UserError
from latentlens_dag.index import approximate
from latentlens_dag.index.contextual_index import ContextualIndex
from latentlens_dag.index.lance_files import open_table
from latentlens_dag.index.layer_tables import commit_fragments
from latentlens_dag.publish.snippets import snippets_of
from latentlens_dag.storage.hashing import text_id
from latentlens_dag.storage.warehouse import Warehouse
from tests.helpers.hub_server import COMMIT, HubServer, Repo
from tests.helpers.released import (
    ABOUT,
    TEXTS,
    WIDTH,
    contents,
    stage,
    stage_words,
    write_index,
    write_shared,
    write_warehouse,
)
from tests.publish.test_card import QUIET, RUN_ALL, front_matter

QUERIES = np.random.default_rng(0).standard_normal((2, WIDTH)).astype(np.float32)
ROWS = 1200
ADDRESS = "hf://datasets/user/small"


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    """With an index of three layers; releases are staged into it, nothing else is changed."""
    warehouse = Warehouse(tmp_path_factory.mktemp("indexed") / "warehouse")
    write_shared(warehouse, [[0]])
    write_index(warehouse, layers=(1, 2, 3), rows=ROWS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(approximate, "_QUERIES", 16)
        approximate.build_approximate_index(warehouse.layer_table("words", 3))
    return warehouse


@pytest.fixture(scope="module")
def files(warehouse: Warehouse) -> Mapping[str, bytes]:
    """A release of it."""
    stage_words(warehouse, vectors=True)
    return contents(warehouse.release("small"))


@pytest.fixture
def hub(files: Mapping[str, bytes]) -> HubServer:
    """The Hub that has it."""
    server = HubServer()
    server.add(Repo(ABOUT.repo_id, files, refs=("main", "v1.0.0")))
    return server


def _answers(index: ContextualIndex, **options: Any) -> list[dict[str, Any]]:
    return index.search(QUERIES, 5, **options).to_polars().to_dicts()


def test_a_staged_index_answers_as_the_one_of_the_warehouse(warehouse: Warehouse) -> None:
    stage_words(warehouse)
    staged, own = (ContextualIndex.open(p) for p in (warehouse.release("small"), warehouse.index("words").root))
    assert (staged.layers, staged.rows, staged.language_model) == ([1, 2, 3], ROWS, "model")
    shapes = [json.loads((Path(index.path) / "shape.json").read_text()) for index in (staged, own)]
    assert [shape.get("dtype") for shape in shapes] == [own.dtype, None] and staged.dtype == own.dtype
    for options in ({}, {"layers": [2], "word": "dog"}, {"layers": [3], "exact": False, "recall": 0.1}):
        assert _answers(staged, **options) == _answers(own, **options)


def test_staging_again_gives_the_same_bytes(warehouse: Warehouse) -> None:
    first = stage_words(warehouse, vectors=True)
    before = contents(warehouse.release("small"))
    assert stage_words(warehouse, vectors=True) == first
    assert contents(warehouse.release("small")) == before


def test_only_the_newest_version_of_a_table_goes_out(tmp_path: Path) -> None:
    warehouse = Warehouse(tmp_path / "warehouse")
    write_shared(warehouse, [[0]])
    write_index(warehouse, layers=(1,))
    table = warehouse.layer_table("words", 1)
    commit_fragments(table, [warehouse.fragments("words", 1, 1)], "half of it")
    commit_fragments(table, [warehouse.fragments("words", 1, shard) for shard in range(2)], "all of it")
    stage_words(warehouse)
    staged = warehouse.release("small") / "layer_01.lance"
    assert len(list((table / "_versions").glob("*.manifest"))) == 3
    assert [path.name for path in (staged / "_versions").iterdir()] == [f"{2**64 - 1 - 3}.manifest"]
    assert len(list((staged / "_transactions").iterdir())) == 1
    assert open_table(staged).to_table().equals(open_table(table).to_table())


def test_vectors_go_out_as_parquet_on_request(warehouse: Warehouse) -> None:
    folder = warehouse.release("small")
    stage_words(warehouse, vectors=False)
    assert not (folder / "vectors").exists()
    made = stage_words(warehouse, vectors=True)
    for layer in (1, 2, 3):
        found = pq.read_table(folder / "vectors" / f"layer_{layer:02d}.parquet")
        stored = open_table(warehouse.layer_table("words", layer)).to_table(columns=["key", "vector", "norm"])
        assert found.equals(stored.cast(found.schema))
        column = pq.read_metadata(folder / "vectors" / f"layer_{layer:02d}.parquet").row_group(0).column(1)
        assert column.compression == "UNCOMPRESSED"
    assert set(made.tables) == {"occurrences", "sentences"}


def test_sentences_are_those_of_the_corpus_or_those_of_the_occurrences(warehouse: Warehouse) -> None:
    def ids() -> list[str]:
        found: list[str] = pl.read_parquet(warehouse.release("small") / "sentences.parquet")["sentence_id"].to_list()
        return found

    stage_words(warehouse)
    assert ids() == [text_id(text) for text in TEXTS]
    stage_words(warehouse, every_sentence=False)
    assert ids() == [text_id(text) for text in TEXTS[:30]]


def test_no_file_but_lances_own_says_where_it_was_made(warehouse: Warehouse) -> None:
    stage_words(warehouse, vectors=True)
    for path, content in contents(warehouse.release("small")).items():
        assert str(warehouse.root).encode() not in content, path


SEARCH = """
import json
import numpy as np
from latentlens_dag import ContextualIndex
options, queries = json.loads(sys.argv[2]), np.array(json.loads(sys.argv[3]), np.float32)
index = ContextualIndex.open(sys.argv[1])
print(index.layers, index.rows, index.language_model)
if options is not None:
    found = index.search(queries, 5, **options)
    print(found.method)
    print(json.dumps(found.to_polars().to_dicts()))
"""


def _search(hub: HubServer, home: Path, options: object, address: str = ADDRESS, **env: str) -> list[str]:
    done = hub.run(SEARCH, address, json.dumps(options), json.dumps(QUERIES.tolist()), home=home, **env)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_opening_reads_the_manifest_and_the_shape_only(hub: HubServer, tmp_path: Path) -> None:
    assert _search(hub, tmp_path / "home", None) == [f"[1, 2, 3] {ROWS} model"]
    assert hub.asked("^GET .*/resolve/") == 2
    assert hub.asked(rf"^GET .*/resolve/{COMMIT}/(manifest|shape)\.json$") == 2


@pytest.mark.parametrize("options", [{"layers": [2]}, {"layers": [3], "exact": False, "recall": 0.1}])
def test_a_search_over_the_network_reads_its_own_layer_and_answers_as_here(
    warehouse: Warehouse, files: Mapping[str, bytes], hub: HubServer, tmp_path: Path, options: dict[str, Any]
) -> None:
    _, method, answers = _search(hub, tmp_path / "home", options, f"{ADDRESS}@v1.0.0", HF_TOKEN="hf_secret")
    here = ContextualIndex.open(warehouse.index("words").root)
    assert json.loads(answers) == _answers(here, **options)
    assert method == here.search(QUERIES, 5, **options).method
    (layer,) = options["layers"]
    others = [other for other in (1, 2, 3) if other != layer]
    assert hub.asked(f"layer_0{layer}.lance/data/") and not any(hub.asked(f"layer_0{other}") for other in others)
    assert hub.asked(r"^GET .*\.parquet$") == 3  # occurrences in two parts, sentences
    assert hub.asked(f"layer_0{layer}.lance") == hub.asked(f"/{COMMIT}/layer_0{layer}.*lance")
    assert hub.tokens == {"Bearer hf_secret"}


def test_an_exact_search_over_the_network_reads_little_more_than_its_layer(
    files: Mapping[str, bytes], hub: HubServer, tmp_path: Path
) -> None:
    _search(hub, tmp_path / "home", {"layers": [1]})
    needed = ("layer_01", "occurrences", "sentences", "shape", "manifest")
    least = sum(len(files[path]) for path in files if path.startswith(needed))
    assert hub.sent_bytes < least + 4 * 65_536  # Lance reads the end of a file, of 64 KiB, to know what is in it


REFUSED = """
from latentlens_dag import ContextualIndex
from latentlens_dag.errors import UserError
try:
    index = ContextualIndex.open(sys.argv[1])
    print(len(index.occurrences))
except UserError as error:
    print(error)
"""


def _refused(hub: HubServer, home: Path, address: str = ADDRESS) -> str:
    done = hub.run(REFUSED, address, home=home)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_what_is_not_there_is_told(hub: HubServer, tmp_path: Path) -> None:
    assert "Reading user/other failed" in _refused(hub, tmp_path / "home", "hf://datasets/user/other")
    assert "Reading user/small at v2 failed" in _refused(hub, tmp_path / "home", f"{ADDRESS}@v2")
    with pytest.raises(UserError, match=r"hf://models/a/b is no address of an index"):
        ContextualIndex.open("hf://models/a/b")


def test_a_layer_table_that_cannot_be_read_is_told_without_the_token(hub: HubServer, tmp_path: Path) -> None:
    hub.failing = {r"layer_02\.lance": 403}
    code = REFUSED.replace("index.occurrences", "index.search(np.ones((1, index.width)), layers=[2]).key")
    done = hub.run("import numpy as np\n" + code, ADDRESS, home=tmp_path / "home", HF_TOKEN="hf_secret")
    assert f"A layer table of {ADDRESS} cannot be read" in done.stdout
    assert "latentlens-dag pull user/small" in done.stdout
    assert "hf_secret" not in done.stdout + done.stderr


def test_a_release_of_results_is_no_index(tmp_path: Path) -> None:
    warehouse = write_warehouse(tmp_path / "warehouse", images=1, batches=1)
    stage(warehouse, thumbnails=False)
    server = HubServer()
    server.add(Repo(ABOUT.repo_id, contents(warehouse.release("small"))))
    assert "is a release of results, not of an index" in _refused(server, tmp_path / "home")


def test_a_file_that_is_not_what_the_manifest_says_is_refused(files: Mapping[str, bytes], tmp_path: Path) -> None:
    path = "occurrences/shard_01.parquet"
    flipped = files[path][:100] + bytes([files[path][100] ^ 1]) + files[path][101:]
    server = HubServer()
    server.add(Repo(ABOUT.repo_id, {**files, path: flipped}))
    assert f"{path} of user/small is not what its manifest says" in _refused(server, tmp_path / "home")


def test_every_snippet_of_an_indexs_card_runs(files: Mapping[str, bytes], hub: HubServer, tmp_path: Path) -> None:
    card = files["README.md"].decode()
    snippets = snippets_of(card)
    assert snippets.keys() == {"latentlens_dag", "lancedb", "datasets", "polars"}
    done = hub.run(QUIET + RUN_ALL, json.dumps(snippets), home=tmp_path / "home")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert f"layers=[1, 2, 3]) {WIDTH}" in said["latentlens_dag"]
    assert "shape: (5, " in said["lancedb"] and "word" in said["lancedb"]
    assert "'sentence_id': " in said["datasets"]
    assert "vector" in said["polars"]


def test_the_card_of_an_index_names_its_tables_and_terms(files: Mapping[str, bytes], warehouse: Warehouse) -> None:
    facts = front_matter(files["README.md"].decode())
    assert [config["config_name"] for config in facts["configs"]] == [
        "sentences",
        "occurrences",
        *(f"layer_0{layer}" for layer in (1, 2, 3)),
    ]
    stage_words(warehouse, replace(ABOUT, title="<b>Words</b>"))
    card = (warehouse.release("small") / "README.md").read_text()
    assert "# &#60;b&#62;Words&#60;/b&#62;" in card
    assert "- corpus: 64 sentences of `text`" in card
