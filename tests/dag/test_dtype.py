"""The dtype of an index and a study: declared in the YAML, recorded, and never mixed."""

from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest

from latentlens_dag.errors import UserError
from latentlens_dag.index.contextual_index import ContextualIndex
from latentlens_dag.index.state_tables import read_states
from latentlens_dag.models import dtypes
from latentlens_dag.storage.lineage import lineage, lineage_text
from latentlens_dag.storage.records import ArtifactStore
from latentlens_dag.storage.shapes import stored_dtype
from latentlens_dag.storage.warehouse import Warehouse
from latentlens_dag.testing import tiny_llava
from tests.dag.conftest import build, opened

Copy = Callable[[Path], Path]


@pytest.fixture
def as_on_another_machine(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Let `auto` of a tiny model be bfloat16."""

    def switch() -> None:
        monkeypatch.setattr(dtypes, "_LARGE_BYTES", 0)
        monkeypatch.setattr(dtypes, "has_bfloat16", lambda device: True)
        monkeypatch.setattr(dtypes, "_dtype_of_config", lambda folder: "bfloat16")

    return switch


def _declare(project: Path, dtype: str, *components: str) -> None:
    file = project / "assets" / "tiny" / "defs.yaml"
    text = file.read_text()
    if "Index" in components:
        text = text.replace("contexts_per_token: 5}", f"contexts_per_token: 5, dtype: {dtype}}}")
    if "Study" in components:
        text = text.replace("  top_k: 3\n", f"  top_k: 3\n  dtype: {dtype}\n")
    file.write_text(text)


def _warehouse(project: Path) -> Warehouse:
    return Warehouse(project / ".latentlens" / "warehouse")


def _dtypes(project: Path) -> dict[str, str | None]:
    """The recorded dtype of every artifact that a model computes."""
    records = ArtifactStore(_warehouse(project).root).records()
    return {record.label: record.dtype for record in records if record.dtype is not None}


def test_the_dtype_is_in_the_records_the_shapes_and_the_lineage(built_project: Path) -> None:
    warehouse, computed = _warehouse(built_project), _dtypes(built_project)
    assert {"index/words/contextual/L01[00]", "study/tiny/visual/V00[01]", "study/tiny/model_checks"} <= set(computed)
    assert set(computed.values()) == {"float32"}
    assert ContextualIndex.open(warehouse.index("words").root).dtype == "float32"
    assert stored_dtype(warehouse.shape("study", "tiny")) == "float32"
    store = ArtifactStore(warehouse.root)
    record = store.read("study/tiny/visual/V00", "00")
    assert record is not None
    assert "computed in: float32" in lineage_text(lineage(store, record))


def test_a_declared_dtype_computes_all_states_in_it(built_project: Path, copy_of: Copy) -> None:
    project = copy_of(built_project)
    _declare(project, "bfloat16", "Index", "Study")
    built = build(project)
    assert {"index/words/contextual/L01[01]", "study/tiny/visual/V01[00]", "study/tiny/logitlens/V00[00]"} <= set(built)
    assert set(_dtypes(project).values()) == {"bfloat16"}
    warehouse = _warehouse(project)
    assert read_states(warehouse.visual("tiny", 1, 0)).dtype == "bfloat16"
    assert ContextualIndex.open(warehouse.index("words").root).dtype == "bfloat16"
    assert build(project) == []


def test_auto_that_is_another_dtype_now_is_refused_before_anything_is_computed(
    built_project: Path, copy_of: Copy, as_on_another_machine: Callable[[], None]
) -> None:
    project = copy_of(built_project)
    before = {path: path.read_bytes() for path in _warehouse(project).root.rglob("*.parquet")}
    as_on_another_machine()
    assert build(project) == []  # what is built stays
    corpus = project / "assets" / "tiny" / "corpus.txt"
    corpus.write_text(corpus.read_text() + "A cat sees the sea.\n")
    with pytest.raises(UserError, match=r"`dtype: auto` of Index words is bfloat16 .* so far are in float32"):
        build(project)
    pictures = project / "assets" / "tiny" / "pictures"
    (pictures / "picture_9.png").write_bytes((pictures / "picture_0.png").read_bytes() + b" ")
    with pytest.raises(UserError, match=r"`dtype: auto` of Study tiny is bfloat16 .* so far are in float32"):
        build(project, names=["study/tiny/visual"])
    states = [path for path in before if "visual" in path.parts]
    assert all(path.read_bytes() == before[path] for path in states)
    assert set(_dtypes(project).values()) == {"float32"}


def test_naming_the_stored_dtype_goes_on_without_computing_a_state_again(
    built_project: Path, copy_of: Copy, as_on_another_machine: Callable[[], None]
) -> None:
    project = copy_of(built_project)
    as_on_another_machine()
    _declare(project, "float32", "Index", "Study")
    built = build(project, names=["index/words/contextual", "study/tiny/visual/V00"])
    assert {"index/words/contextual/L01[01]", "study/tiny/visual/V00[01]"} <= set(built)
    assert _last_figure(project, dg.AssetKey(["index", "words", "contextual", "L01"]), "rows_encoded") == 0
    assert _last_figure(project, dg.AssetKey(["study", "tiny", "visual", "V00"]), "forwarded") == 0


def _last_figure(project: Path, key: dg.AssetKey, name: str) -> object:
    """A figure of the metadata of an asset's last partition."""
    with opened(project) as one:
        event = one.instance.get_latest_materialization_event(key)  # type: ignore[attr-defined]
    return event.asset_materialization.metadata[name].value


def test_another_model_may_be_in_another_dtype(
    built_project: Path, copy_of: Copy, as_on_another_machine: Callable[[], None]
) -> None:
    project = copy_of(built_project)
    tiny_llava(project / "assets" / "tiny" / "model", seed=1)
    as_on_another_machine()
    built = build(project)
    assert {"index/words/contextual/L01[01]", "study/tiny/visual/V00[01]"} <= set(built)
    assert set(_dtypes(project).values()) == {"bfloat16"}
    assert stored_dtype(_warehouse(project).shape("study", "tiny")) == "bfloat16"


def test_the_states_of_a_home_whose_records_name_no_dtype_are_not_mixed_either(
    built_project: Path, copy_of: Copy, as_on_another_machine: Callable[[], None]
) -> None:
    project = copy_of(built_project)
    for file in _warehouse(project).root.rglob("*.json"):
        if "study/tiny/visual" in file.read_text(encoding="utf-8"):
            text = "".join(line for line in file.open(encoding="utf-8") if '"dtype":' not in line)
            file.write_text(text, encoding="utf-8")
    as_on_another_machine()
    picture = project / "assets" / "tiny" / "pictures" / "picture_0.png"
    picture.write_bytes(picture.read_bytes() + b" ")
    with pytest.raises(UserError, match=r"`dtype: auto` of Study tiny is bfloat16 .* so far are in float32"):
        build(project, names=["study/tiny/visual"])


def test_lenses_that_are_all_outdated_take_no_other_dtype_than_the_states(
    built_project: Path, copy_of: Copy, as_on_another_machine: Callable[[], None]
) -> None:
    project = copy_of(built_project)
    file = project / "assets" / "tiny" / "defs.yaml"
    file.write_text(file.read_text().replace("top_k: 3", "top_k: 2"))
    as_on_another_machine()
    with pytest.raises(UserError, match=r"`dtype: auto` of Study tiny is bfloat16 .* so far are in float32"):
        build(project)


def test_the_dtype_of_a_study_whose_shape_was_deleted_is_written_again(built_project: Path, copy_of: Copy) -> None:
    project = copy_of(built_project)
    shape = _warehouse(project).shape("study", "tiny")
    shape.unlink()
    build(project)
    assert stored_dtype(shape) == "float32"


def test_a_single_part_in_another_dtype_is_no_damage_and_the_next_build_makes_the_rest(
    built_project: Path, copy_of: Copy
) -> None:
    project = copy_of(built_project)
    _declare(project, "bfloat16", "Study")
    build(project, names=["study/tiny/visual/V01[00]"])
    assert set(_dtypes(project).values()) == {"bfloat16", "float32"}
    store = ArtifactStore(_warehouse(project).root)
    assert [record.label for record in store.records() if store.problems(record, deep=True)] == []
    build(project)
    assert set(_dtypes(project).values()) == {"bfloat16", "float32"}  # the index stays in float32
    assert {dtype for label, dtype in _dtypes(project).items() if "study" in label} == {"bfloat16"}
    assert stored_dtype(_warehouse(project).shape("study", "tiny")) == "bfloat16"
