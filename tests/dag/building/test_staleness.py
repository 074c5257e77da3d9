"""What counts as changed, and the words in which it is told; on assets of a second instead of a whole study."""

import os
from dataclasses import replace
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.definitions.observe import observe

from latentlens_dag.dag.assets.corpus import corpus_definitions
from latentlens_dag.dag.building.staleness import NOT_BUILT, find_stale, observe_sources
from latentlens_dag.dag.building.steps import Lineage
from latentlens_dag.dag.resources import WarehouseResource
from latentlens_dag.dag.specs import CorpusSpec
from latentlens_dag.dag.versions import SOURCE_PATH, SOURCE_VERSION, content_version, version_of
from latentlens_dag.hub.datasets import HubColumn
from latentlens_dag.storage.records import ArtifactStore
from latentlens_dag.storage.warehouse import Warehouse

SOURCE, MADE, NEXT = (dg.AssetKey(["here", name]) for name in ("source", "made", "next"))


def _write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


FILES = {"a.txt": "one", "sub/b.txt": "two"}


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({}, True),
        ({"README.md": "a card"}, True),
        ({"a.txt": "One"}, False),  # as long as before
        ({"c.txt": ""}, False),
        ({"sub/c.txt": "two"}, False),
    ],
)
def test_a_folders_version_is_that_of_its_files_names_and_contents(
    tmp_path: Path, change: dict[str, str], same: bool
) -> None:
    folder, memory = tmp_path / "model", tmp_path / "memory.json"
    _write(folder, FILES)
    before = content_version(folder, memory)
    _write(folder, change)
    for name in change:
        os.utime(folder / name, ns=(0, 0))
    assert (content_version(folder, memory) == before) is same
    assert (content_version(folder, tmp_path / "no memory.json") == before) is same


def test_a_file_that_is_renamed_or_removed_is_another_version_and_a_moved_folder_is_not(tmp_path: Path) -> None:
    _write(tmp_path / "model", FILES)
    versions = [content_version(tmp_path / "model", tmp_path / "memory.json")]
    (tmp_path / "model").rename(tmp_path / "moved")
    assert content_version(tmp_path / "model", tmp_path / "memory.json") == "missing"
    assert content_version(tmp_path / "moved", tmp_path / "memory.json") == versions[0]
    for change in (lambda f: f.rename(f.with_name("c.txt")), lambda f: f.with_name("c.txt").unlink()):
        change(tmp_path / "moved" / "a.txt")
        versions.append(content_version(tmp_path / "moved", tmp_path / "memory.json"))
    assert len(set(versions)) == 3


def test_a_file_as_large_and_as_old_as_before_is_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from latentlens_dag.storage import file_hashes

    file, memory, read = tmp_path / "corpus.txt", tmp_path / "memory.json", []
    file.write_text("one")
    before = content_version(file, memory)
    original = file_hashes.hash_file
    monkeypatch.setattr(file_hashes, "hash_file", lambda path: read.append(path) or original(path))
    assert content_version(file, memory) == before
    assert read == []
    memory.write_text("{")  # half a file
    assert content_version(file, memory) == before
    assert read == [file]


def test_a_steps_version_is_its_algorithm_and_its_fields() -> None:
    versions = [version_of(1), version_of(2), version_of(1, a=1), version_of(2, a=1), version_of(1, a=2)]
    assert len(set(versions)) == len(versions)
    assert version_of(1, a={"x": 1, "y": 2}, b=3) == version_of(1, b=3, a={"y": 2, "x": 1})


def _graph(source: Path, made: str = "1", more: bool = False) -> tuple[dg.Definitions, list[dg.AssetsDefinition]]:
    """source -> made -> next, and another source of `next` where asked for."""

    @dg.observable_source_asset(key=SOURCE, metadata={SOURCE_PATH: str(source)})
    def observed() -> dg.DataVersion:
        raise AssertionError

    @dg.asset(key=MADE, deps=[SOURCE], code_version=made)
    def first() -> dg.MaterializeResult:
        return dg.MaterializeResult(data_version=dg.DataVersion(source.read_text()))

    other = dg.AssetSpec(["here", "other"])

    @dg.asset(key=NEXT, deps=[MADE, other] if more else [MADE], code_version="1")
    def second() -> None:
        pass

    return dg.Definitions(assets=[observed, first, second, other]), [first, second]


def test_a_source_is_told_of_once_per_change_and_what_follows_is_told_why(tmp_path: Path) -> None:
    source, house = tmp_path / "corpus.txt", Warehouse(tmp_path / "warehouse")
    source.write_text("one")
    defs, steps = _graph(source)
    graph, targets = defs.resolve_asset_graph(), [(MADE, None), (NEXT, None)]
    with dg.DagsterInstance.ephemeral() as instance:

        def observe() -> list[dg.AssetKey]:
            return observe_sources(graph, instance, house, [SOURCE, MADE])

        def needs(defs: dg.Definitions = defs) -> list[str]:
            stale = find_stale(Lineage(defs.resolve_asset_graph()), instance, ArtifactStore(house.root), targets)
            return [str(need) for need in stale.values()]

        assert (observe(), observe()) == ([SOURCE], [])
        assert needs() == [f"here/made: {NOT_BUILT}", f"here/next: {NOT_BUILT}"]
        assert dg.materialize(steps, instance=instance).success
        assert needs() == []
        source.write_text("two")
        assert (observe(), observe()) == ([SOURCE], [])
        assert needs()[0] == "here/made: here/source changed"
        assert dg.materialize(steps[:1], instance=instance).success
        assert needs() == ["here/next: here/made changed"]
        assert dg.materialize(steps[1:], instance=instance).success
        assert needs() == []
        changed, _ = _graph(source, made="2")
        assert needs(changed)[0] == "here/made: its settings in the YAML, or the algorithm, changed"
        deps, _ = _graph(source, more=True)
        assert needs(deps) == ["here/next: now reads here/other"]


def _hub_corpus(**fields: str) -> dg.Definitions:
    commit = HubColumn("user/texts", None, "train", "text", "0" * 40)
    corpus = corpus_definitions(CorpusSpec("c", replace(commit, **fields), shards=1), ordered=False)
    return dg.Definitions.merge(corpus, dg.Definitions(resources={"warehouse": WarehouseResource(root="never there")}))


def test_a_commit_of_the_hub_has_one_version_for_the_driver_and_for_dagster(tmp_path: Path) -> None:
    defs, key, house = _hub_corpus(), dg.AssetKey(["corpus", "c", "source"]), Warehouse(tmp_path / "warehouse")
    with dg.DagsterInstance.ephemeral() as instance:
        sources = [asset for asset in defs.assets or [] if isinstance(asset, dg.SourceAsset)]
        assert observe(sources, instance=instance).success
        assert observe_sources(defs.resolve_asset_graph(), instance, house, [key]) == []
        changed = _hub_corpus(revision="1" * 40).resolve_asset_graph()
        assert observe_sources(changed, instance, house, [key]) == [key]
    assert not house.root.exists()


def test_all_that_is_said_of_a_dataset_of_the_hub_is_in_a_version() -> None:
    said = [{}, {"dataset": "user/more"}, {"config": "two"}, {"split": "test"}, {"revision": "1" * 40}]
    graphs = [_hub_corpus(**fields).resolve_asset_graph() for fields in [*said, {"column": "other"}]]
    source, sentences = (dg.AssetKey(["corpus", "c", name]) for name in ("source", "sentences"))
    assert len({graph.get(sentences).code_version for graph in graphs}) == len(graphs)
    observed = [str(graph.get(source).metadata[SOURCE_VERSION]) for graph in graphs]
    assert len(set(observed)) == len(said)
    assert observed[-1] == observed[0]  # another column of the same rows
