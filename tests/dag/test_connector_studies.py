"""Studies whose model is a connector's checkpoint: an asset of the same build, in place of an observed source."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from latentlens_dag.dag.loading import load_definitions
from latentlens_dag.dag.specs import CheckpointSpec
from latentlens_dag.dataset.dataset import open_dataset
from latentlens_dag.dataset.provenance import model_label, study_declaration, summary_rows
from latentlens_dag.errors import UserError
from latentlens_dag.models import dtypes
from latentlens_dag.models.model_ref import ModelRef
from latentlens_dag.release.manifest import MANIFEST, read_manifest
from latentlens_dag.storage.home import Home
from latentlens_dag.storage.records import ArtifactStore
from latentlens_dag.storage.shapes import study_shape
from latentlens_dag.storage.warehouse import Warehouse
from latentlens_dag.study.source import study_source
from tests.dag.conftest import build, opened
from tests.helpers.command_line import run_command
from tests.helpers.copied_checkpoints import copied_checkpoints, project_with_connectors, write_checkpoint

Copy = Callable[[Path], Path]
BASE = """\
type: latentlens_dag.dag.components.Corpus
attributes: {name: text, source: {lines: corpus.txt}, shards: 2}
---
type: latentlens_dag.dag.components.ImageSet
attributes: {name: pictures, source: {folder: pictures}, regions: {masks: regions.parquet}, batches: 2}
---
type: latentlens_dag.dag.components.Index
attributes: {name: words, language_model: {path: language}, corpus: text, layers: [1, 2], contexts_per_token: 5}
---
type: latentlens_dag.dag.components.Connector
attributes: {name: clip, language_model: {path: language}, features: none, steps: 4, checkpoints: [0]}
"""
STUDY = """\
---
type: latentlens_dag.dag.components.Study
attributes:
  name: NAME
  vlm: {VLM}
  index: words
  images: pictures
  layers: [0, 2]
  lenses: [latentlens, logitlens]
  top_k: 3
  judge: {regions: {}}
"""
RELEASE = """\
---
type: latentlens_dag.dag.components.Release
attributes: {name: out, studies: [untrained, trained], repo_id: user/out, license: mit}
"""


def study(name: str, vlm: str) -> str:
    return STUDY.replace("NAME", name).replace("VLM", vlm)


UNTRAINED, TRAINED = study("untrained", "connector: clip, step: 0"), study("trained", "connector: clip")
BY_PATH = study("by_path", "path: trained/clip/S000004")


@pytest.fixture(scope="module", autouse=True)
def checkpoints() -> Iterator[None]:
    with copied_checkpoints():
        yield


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that was never built. Do not write to it: copy it."""
    folder = tmp_path_factory.mktemp("connectors") / "project"
    declared = BASE + UNTRAINED + TRAINED + BY_PATH + RELEASE
    return project_with_connectors(folder, declared, {("clip", 0): 0, ("clip", 4): 4})


@pytest.fixture(scope="module")
def built(fresh: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project, built. Do not write to it: copy it."""
    project = Path(shutil.copytree(fresh, tmp_path_factory.mktemp("built") / "project"))
    build(project)
    return project


def _paths(project: Path) -> Warehouse:
    return Warehouse(project / ".latentlens" / "warehouse")


def _declare(project: Path, text: str) -> None:
    (project / "assets" / "tiny" / "defs.yaml").write_text(text)


def _graph(project: Path, text: str) -> Any:
    _declare(project, text)
    return load_definitions(project, Home(project / ".latentlens")).resolve_asset_graph()


def _collect(project: Path, text: str, **params: str) -> pl.DataFrame:
    with open_dataset(project / ".latentlens") as dataset:
        return dataset.collect(text, **params)


def _last_figure(project: Path, key: list[str], name: str) -> object:
    with opened(project) as one:
        event = one.instance.get_latest_materialization_event(dg.AssetKey(key))  # type: ignore[attr-defined]
    return event.asset_materialization.metadata[name].value


def test_the_model_of_a_study_is_the_checkpoint_and_no_source(fresh: Path, copy_of: Copy) -> None:
    graph = _graph(copy_of(fresh), BASE + UNTRAINED + TRAINED)
    for name, step in (("untrained", "S000000"), ("trained", "S000004")):
        assert dg.AssetKey(["study", name, "vlm"]) not in graph.get_all_asset_keys()
        for part in (["visual", "V00"], ["model_checks"], ["logitlens", "V02"], ["study_connectors"]):
            parents = graph.get(dg.AssetKey(["study", name, *part])).parent_keys
            assert dg.AssetKey(["connector", "clip", "checkpoint", step]) in parents


@pytest.mark.parametrize(
    ("vlm", "words"),
    [
        ("connector: clap", r"`vlm.connector: clap` of Study wrong in \S+ names no Connector. There are: clip."),
        ("connector: clip, step: 3", r"Connector clip is not kept after so many steps. It is after 0, 4. Name one of"),
        ("connector: clip, path: language", r"names the connector clip, .* and `path`, which is of another model"),
        ("connector: clip, trust_remote_code: true", r"and `trust_remote_code`, which is of another model"),
        ("path: language, step: 4", r"`vlm.step: 4` of Study wrong .* is of a connector, which `vlm` does not name"),
        ("step: 4", r"Write `vlm: \{connector: NAME, step: 4\}`, or leave `step` out"),
        ("", r"`vlm` of Study wrong .* must name one model: .* or `vlm: \{connector: NAME\}`"),
    ],
)
def test_what_does_not_go_together_and_what_there_is_not_is_refused(
    fresh: Path, copy_of: Copy, vlm: str, words: str
) -> None:
    with pytest.raises(UserError, match=words):
        _graph(copy_of(fresh), BASE + study("wrong", vlm))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("layers: [0, 2]", "layers: [0, 3]"), r"Layer 3 was asked for, but language has 3 blocks"),
        (("top_k: 3", "top_k: 999"), r"`top_k: 999` of Study trained .* must be at most"),
        (
            ("  index: words\n", "  index: words\n  texts: pictures\n"),
            r"has `vlm`, `images`, `texts`, but a study needs",
        ),
    ],
)
def test_values_are_held_against_the_config_of_the_frozen_language_model(
    fresh: Path, copy_of: Copy, change: tuple[str, str], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        _graph(copy_of(fresh), BASE + TRAINED.replace(*change))


def test_layers_auto_and_the_vocabulary_with_the_image_token_are_known_before_there_is_a_model(
    fresh: Path, copy_of: Copy
) -> None:
    project = copy_of(fresh)
    size = json.loads((project / "assets" / "tiny" / "language" / "config.json").read_text())["vocab_size"]
    text = TRAINED.replace("layers: [0, 2]", "layers: auto").replace("top_k: 3", f"top_k: {size + 1}")
    graph = _graph(project, BASE + text)
    assert dg.AssetKey(["study", "trained", "visual", "V01"]) in graph.get_all_asset_keys()
    with pytest.raises(UserError, match=f"must be at most {size + 1}, the model's vocabulary"):
        _graph(project, BASE + text.replace(f"top_k: {size + 1}", f"top_k: {size + 2}"))


def test_an_index_of_another_language_model_is_refused(fresh: Path, copy_of: Copy) -> None:
    project = copy_of(fresh)
    config = project / "assets" / "tiny" / "other" / "config.json"
    shutil.copytree(config.parent.parent / "language", config.parent)
    config.write_text(json.dumps({**json.loads(config.read_text()), "hidden_size": 48}))
    with pytest.raises(UserError, match=r"through Index words of another model: 3 blocks, width 32, .* width 48"):
        _graph(project, BASE.replace("name: words, language_model: {path: language}", OTHER) + TRAINED)


OTHER = "name: words, language_model: {path: other}"


def test_another_checkpoint_is_another_model_to_the_order_of_steps(fresh: Path, copy_of: Copy) -> None:
    project = copy_of(fresh)
    with opened(project) as one:
        models = {step.name: step.model for step in one.steps if step.name.endswith("/visual")}  # type: ignore[attr-defined]
        groups = [{step.model for step in group.steps} - {None} for group in one.run_groups if group.partitions]  # type: ignore[attr-defined]
    assert len(set(models.values())) == 3 and None not in models.values()  # by path, it is another folder
    assert all(len(group) <= 1 for group in groups)


def test_a_build_reads_both_models_through_one_index_and_is_then_up_to_date(built: Path) -> None:
    assert build(built) == []
    store = ArtifactStore(_paths(built).root)
    assert len([*store.records("index")]) == len({record.label for record in store.records("index")})
    for name, step in (("untrained", "S000000"), ("trained", "S000004")):
        checkpoint = store.read(f"connector/clip/checkpoint/{step}", None)
        states = store.read(f"study/{name}/visual/V00", "00")
        assert checkpoint is not None and states is not None
        assert states.inputs[checkpoint.asset] == checkpoint.data_version
    answers = _collect(built, "SELECT count(DISTINCT study) AS studies, count(*) AS answers FROM neighbors")
    assert answers["studies"].item() == 3
    states = "SELECT study, norm_mean FROM state_statistics WHERE source = 'visual' AND layer = 0"
    assert _collect(built, states)["norm_mean"].n_unique() == 2  # two models


@pytest.mark.parametrize("table", ["neighbors", "judgements", "interpretability", "state_statistics", "sinks"])
def test_a_study_of_a_checkpoint_has_the_rows_of_one_of_the_same_model_by_path(built: Path, table: str) -> None:
    sql = f"SELECT * EXCLUDE (study) FROM {table} WHERE study = $study ORDER BY ALL"
    found, expected = (_collect(built, sql, study=name) for name in ("trained", "by_path"))
    assert found.equals(expected) and (len(found) or table == "sinks")
    other = _collect(built, sql, study="untrained")
    assert table == "sinks" or not found.equals(other)


def test_a_study_by_path_keeps_its_source_and_knows_no_connector(built: Path) -> None:
    shape = study_shape(_paths(built), "by_path")
    assert (shape.connector, shape.step) == (None, None)
    assert "connector" not in _paths(built).shape("study", "by_path").read_text()
    with open_dataset(_paths(built).catalog("by_path")) as catalog:
        assert catalog.collect("FROM study_connectors").is_empty()
        own = catalog.sql("SELECT table_name FROM duckdb_tables() WHERE database_name = 'dataset'").fetchall()
    assert ("neighbors",) in own and ("study_connectors",) not in own  # the file is as before there were connectors


def test_a_model_that_was_not_trained_yet_is_named_with_the_way_to_it(tmp_path: Path) -> None:
    spec = CheckpointSpec("clip", 4, ModelRef(path=tmp_path))
    with pytest.raises(UserError, match=r"connector clip after 4 steps is not there .*clip/checkpoint/S000004`"):
        spec.model_ref(Warehouse(tmp_path))
    (folder := Warehouse(tmp_path).checkpoint("clip", 4)).mkdir(parents=True)
    assert spec.model_ref(Warehouse(tmp_path)) == ModelRef(path=folder)


def test_a_second_connector_builds_nothing_of_the_index_again(built: Path, copy_of: Copy) -> None:
    project = copy_of(built)
    for step in (0, 6):
        write_checkpoint(project, "other", step, 100 + step)
    connector = BASE.rpartition("---\n")[2].replace("name: clip", "name: other").replace("steps: 4", "steps: 6")
    _declare(
        project, f"{BASE}---\n{connector}{UNTRAINED}{TRAINED}{BY_PATH}{study('second', 'connector: other')}{RELEASE}"
    )
    ran = build(project)
    assert {one.split("/")[0] for one in ran} == {"connector", "study"}
    assert {one.split("/")[1] for one in ran if one.startswith("study/")} == {"second"}
    assert build(project) == []


def test_a_checkpoint_that_is_trained_again_makes_its_study_stale_and_no_other(built: Path, copy_of: Copy) -> None:
    project = copy_of(built)
    folder = project / "assets" / "tiny" / "trained" / "clip" / "S000004"
    before = _collect(project, "FROM neighbors WHERE study = 'untrained' ORDER BY ALL")
    shutil.rmtree(folder)
    write_checkpoint(project, "clip", 4, seed=5)
    with opened(project) as one:
        selection = one.select()  # type: ignore[attr-defined]
        planned = one.plan(selection)  # type: ignore[attr-defined]
        assert not one.reused(planned)  # type: ignore[attr-defined]
        reasons = {str(target).split(":")[0]: target.reason for target in planned}
    assert reasons["study/trained/visual/V00[00]"] == "follows connector/clip/checkpoint/S000004"
    assert not any(name.startswith(("study/untrained", "index")) for name in reasons)
    ran = build(project)
    assert {"connector/clip/checkpoint/S000004", "study/trained/visual/V00[01]", "release/out/dataset"} <= set(ran)
    assert _last_figure(project, ["study", "trained", "visual", "V00"], "forwarded") == 2
    assert _collect(project, "FROM neighbors WHERE study = 'untrained' ORDER BY ALL").equals(before)
    # The same bytes again: only the copy runs.
    build(project, names=["connector/clip/checkpoint/S000004"], force=True)
    assert build(project) == []


def test_states_are_read_from_disk_where_the_checkpoint_is_the_same(built: Path, copy_of: Copy) -> None:
    project = copy_of(built)
    _declare(project, BASE + UNTRAINED + TRAINED.replace("layers: [0, 2]", "layers: [0, 1, 2]") + RELEASE)
    pictures = project / "assets" / "tiny" / "pictures"
    (pictures / "picture_9.png").write_bytes((pictures / "picture_0.png").read_bytes() + b" ")
    with opened(project) as one:
        selection = one.select()  # type: ignore[attr-defined]
        one.observe(selection)  # type: ignore[attr-defined]
        assert one.reused(one.plan(selection))["study/trained/visual"] > 0  # type: ignore[attr-defined]
    build(project, names=["study/trained/visual/V00"])
    forwarded = _last_figure(project, ["study", "trained", "visual", "V00"], "forwarded")
    assert forwarded in (0, 1)  # the new picture, in one of the two batches


def test_states_in_two_dtypes_are_refused(built: Path, copy_of: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    project = copy_of(built)
    monkeypatch.setattr(dtypes, "_LARGE_BYTES", 0)
    monkeypatch.setattr(dtypes, "has_bfloat16", lambda device: True)
    monkeypatch.setattr(dtypes, "_dtype_of_config", lambda folder: "bfloat16")
    pictures = project / "assets" / "tiny" / "pictures"
    (pictures / "picture_9.png").write_bytes((pictures / "picture_0.png").read_bytes() + b" ")
    with pytest.raises(UserError, match=r"`dtype: auto` of Study trained is bfloat16 .* so far are in float32"):
        build(project, names=["study/trained/visual"])


def test_a_home_names_the_model_by_its_own_folder_and_may_be_moved(built: Path, tmp_path: Path) -> None:
    shape = study_shape(_paths(built), "trained")
    assert (shape.connector, shape.step, shape.model_in_project) == ("clip", 4, None)
    assert shape.model == {"path": "connector/clip/checkpoint/S000004", "trust_remote_code": False}
    moved = Warehouse(Path(shutil.copytree(built / ".latentlens", tmp_path / "moved")) / "warehouse")
    assert study_source(moved, "trained") == (ModelRef(path=moved.checkpoint("clip", 4)), "words")
    shutil.rmtree(moved.checkpoint("clip", 4))
    with pytest.raises(
        UserError, match=r"which this home made and does not have any more. `latentlens-dag build trained`"
    ):
        study_source(moved, "trained")


def test_a_build_into_another_home_of_the_project_names_it_so_too(fresh: Path, copy_of: Copy, tmp_path: Path) -> None:
    project, home = copy_of(fresh), tmp_path / "elsewhere"
    _declare(project, BASE + TRAINED)
    build(project, home)
    assert study_source(Warehouse(home / "warehouse"), "trained").model.path == Warehouse(
        home / "warehouse"
    ).checkpoint("clip", 4)


def test_search_reads_the_model_of_the_home(built: Path) -> None:
    home = str(built / ".latentlens")
    found = run_command(built, "search", "--study", "trained", "--text", "a dog", "--json", "--home", home)
    assert found.returncode == 0, found.stderr
    assert {row["token"].strip() for row in json.loads(found.stdout)} & {"dog", "a"}


def test_search_before_the_study_is_built_says_what_to_do(fresh: Path, copy_of: Copy) -> None:
    project = copy_of(fresh)
    build(project, names=["index/words/table"])
    home = str(project / ".latentlens")
    found = run_command(project, "search", "--study", "trained", "--text", "a dog", "--home", home)
    assert found.returncode == 2 and "latentlens-dag build trained" in found.stderr


def test_the_table_says_which_step_of_which_connector_a_study_reads(built: Path) -> None:
    rows = _collect(built, "FROM study_connectors ORDER BY step").rows()
    assert rows == [("untrained", "clip", 0), ("trained", "clip", 4)]
    with open_dataset(_paths(built).catalog("trained")) as catalog:
        assert catalog.collect("FROM study_connectors").rows() == rows[1:]


def test_the_steps_of_a_training_are_the_shares_of_the_studies_in_order(built: Path) -> None:
    found = _collect(built, "training_steps")
    shares = _collect(built, "FROM interpretability WHERE patch_group = 'all' AND measure = 'interpretable' AND k = 3")
    steps = {"untrained": 0, "trained": 4}
    expected = sorted(
        ("clip", row["lens"], row["visual_layer"], steps[row["study"]], row["study"], row["share"])
        for row in shares.iter_rows(named=True)
        if row["study"] in steps
    )
    columns = ["connector", "lens", "visual_layer", "step", "study"]
    assert found.select(columns).rows() == [row[:-1] for row in expected] and len(expected) == 2 * 2 * 2
    assert found["percent"].to_list() == pytest.approx([100 * row[-1] for row in expected], abs=0.051)
    intervals = ["percent_low", "percent_high", "chance_percent", "chance_low", "chance_high"]
    one = shares.filter(study="trained", lens="latentlens", visual_layer=2)
    two = found.filter(study="trained", lens="latentlens", visual_layer=2).select(intervals).row(0)
    exact = one.select("low", "high", "chance", "chance_low", "chance_high").row(0)
    assert two == pytest.approx([100 * value for value in exact], abs=0.051)
    assert _collect(built, "training_steps", lens="logitlens", layer="0", k="1")["step"].to_list() == [0, 4]


def test_a_release_has_the_table_and_the_query_and_says_what_the_model_is(built: Path) -> None:
    folder = _paths(built).release("out")
    manifest = read_manifest(folder / MANIFEST)
    assert manifest.tables["study_connectors"].rows == 2
    assert (folder / "queries" / "training_steps.sql").is_file()
    model = manifest.studies["trained"]["model"]
    record = ArtifactStore(_paths(built).root).read("connector/clip/checkpoint/S000004", None)
    assert record is not None and model["weights"] == record.data_version
    assert (model["connector"], model["step"], model["language_model"]["name"]) == ("clip", 4, "language")
    assert (
        f"connector clip after 4 steps, in language, files {record.data_version}" in (folder / "README.md").read_text()
    )
    with open_dataset(folder) as release:
        assert release.collect("training_steps").equals(_collect(built, "training_steps"))
        facts = study_declaration(folder, release, "trained")
        assert model_label(facts) == "clip, step 4"


def test_provenance_names_connector_step_and_files(built: Path) -> None:
    home = built / ".latentlens"
    record = ArtifactStore(_paths(built).root).read("connector/clip/checkpoint/S000000", None)
    assert record is not None
    with open_dataset(home) as dataset:
        told = dict(summary_rows(study_declaration(home, dataset, "untrained")))
    assert re.match(rf"connector clip after 0 steps, files {record.data_version}", told["Model"])


def test_a_study_that_reads_a_connector_instead_of_a_model_is_stale_and_forgets_the_model(
    built: Path, copy_of: Copy
) -> None:
    project = copy_of(built)
    _declare(project, BASE + study("trained", "path: trained/clip/S000004"))
    build(project)
    assert _collect(project, "FROM study_connectors WHERE study = 'trained'").is_empty()
    assert study_shape(_paths(project), "trained").connector is None
    _declare(project, BASE + TRAINED)
    with opened(project) as one:
        reasons = [str(target) for target in one.plan(one.select())]  # type: ignore[attr-defined]
    assert any("now reads connector/clip/checkpoint/S000004" in reason for reason in reasons)
    build(project)
    assert _collect(project, "FROM study_connectors WHERE study = 'trained'").rows() == [("trained", "clip", 4)]
    with open_dataset(project / ".latentlens") as dataset:
        told = dict(summary_rows(study_declaration(project / ".latentlens", dataset, "trained")))
    assert told["Model"].startswith("connector clip after 4 steps")
