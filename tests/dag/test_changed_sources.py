"""Sources that change while a build reads them, and are put back: nothing of them is taken for the observed ones."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from safetensors.torch import load_file, save_file

from latentlens_dag.errors import UserError
from latentlens_dag.inputs import regions, texts
from latentlens_dag.models.model_cache import ModelCache
from latentlens_dag.storage.records import ArtifactStore
from tests.dag.conftest import build

Copy = Callable[[Path], Path]


def _versions(project: Path) -> dict[str, str]:
    """The data version of every artifact, but of those that hold the project's path."""
    records = ArtifactStore(project / ".latentlens" / "warehouse").records()
    return {record.label: record.data_version for record in records if "catalog" not in record.label}


def _change_before(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, file: Path, change: Callable[[Path], object]
) -> Callable[[], None]:
    """Change a file when a function is first called; give what puts the file back, with its time."""
    kept, real, calls = file.with_suffix(".kept"), getattr(owner, name), []
    shutil.copy2(file, kept)

    def changing(*arguments: Any, **options: Any) -> Any:
        if not calls:
            change(file)
        calls.append(name)
        return real(*arguments, **options)

    monkeypatch.setattr(owner, name, changing)
    return lambda: kept.replace(file) and None


def test_a_corpus_that_is_edited_while_it_is_read_is_refused(
    built_project: Path, fresh_project: Path, copy_of: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = copy_of(fresh_project)
    file = project / "assets" / "tiny" / "corpus.txt"
    text = file.read_text() + "A cat sees the sea.\n"
    put_back = _change_before(monkeypatch, texts, "write_sentences", file, lambda path: path.write_text(text))
    with pytest.raises(UserError, match=r"corpus.txt was changed after it was last observed.*Build again"):
        build(project)
    put_back()
    build(project)
    assert _versions(project) == _versions(built_project)


@pytest.mark.parametrize(
    ("loaded_as", "step"), [("language_model", "index/words/contextual"), ("vlm", "study/tiny/visual")]
)
def test_a_model_that_is_replaced_between_its_observation_and_its_load_is_refused(
    built_project: Path, copy_of: Copy, monkeypatch: pytest.MonkeyPatch, loaded_as: str, step: str
) -> None:
    def double(path: Path) -> None:
        save_file({name: weight * 2 for name, weight in load_file(path).items()}, path, metadata={"format": "pt"})

    project = copy_of(built_project)
    file = project / "assets" / "tiny" / "model" / "model.safetensors"
    put_back = _change_before(monkeypatch, ModelCache, loaded_as, file, double)
    with pytest.raises(UserError, match="was changed after it was last observed"):
        build(project, names=[step], force=True)
    put_back()
    build(project)
    assert _versions(project) == _versions(built_project)
    assert build(project) == []


def test_a_regions_file_that_is_edited_while_it_is_read_is_refused(
    built_project: Path, fresh_project: Path, copy_of: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = copy_of(fresh_project)
    file = project / "assets" / "tiny" / "regions.parquet"
    other = pl.read_parquet(file).with_columns(name=pl.lit("zebra"))
    put_back = _change_before(monkeypatch, regions, "region_rows", file, other.write_parquet)
    with pytest.raises(UserError, match=r"regions.parquet was changed after it was last observed"):
        build(project)
    put_back()
    build(project)
    assert _versions(project) == _versions(built_project)
