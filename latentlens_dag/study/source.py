"""The model and the index that a study was built with, from the study's `shape.json`.

Note: a home may come from somebody else, so its `trust_remote_code` only says that the model brings code. Whether that
code is run is the caller's decision.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from latentlens_dag.errors import UserError
from latentlens_dag.models.model_ref import ModelRef
from latentlens_dag.storage.files import read_json_object
from latentlens_dag.storage.home import find_project
from latentlens_dag.storage.records import ArtifactStore
from latentlens_dag.storage.shapes import StudyShape, read_shape, study_shape
from latentlens_dag.storage.warehouse import Warehouse

_FIELDS = {"index", "model", "model_in_project"}  # of `shape.json`


class StudySource(NamedTuple):
    """What the neighbors of a study were computed with."""

    model: ModelRef
    index_name: str


def source_fields(source: StudySource, warehouse: Warehouse) -> dict[str, Any]:
    """The fields of `shape.json` for a study's model and index, which `study_source` reads.

    A folder in the home's own project is stored twice, as its path and relative to the warehouse, so that either the
    whole project or the home alone may be moved. A folder of the warehouse, where a connector's checkpoints lie, moves
    with it in any case, and is stored relative to it alone.
    """
    model, project, root = source.model, find_project(warehouse.root), warehouse.root.resolve()
    fields = {"index": source.index_name, "model": model.to_json()}
    if model.path is None:
        return fields
    if model.path.is_relative_to(warehouse.root):
        return {**fields, "model": replace(model, path=model.path.relative_to(warehouse.root)).to_json()}
    path = Path(os.path.normpath(model.path.absolute()))  # not resolved: links stay
    fields["model"] = replace(model, path=path).to_json()
    inside = project is not None and path.is_relative_to(project)
    return {**fields, "model_in_project": os.path.relpath(path, root)} if inside else fields


def recorded_source_fields(shape: Path) -> dict[str, Any]:
    """The stored fields of `source_fields`; empty where `shape.json` is missing or damaged."""
    try:
        stored = read_shape(StudyShape, shape)
    except UserError:
        return {}
    return {} if stored is None else stored.model_dump(include=_FIELDS, exclude_none=True)


def study_source(warehouse: Warehouse, study: str, trust_remote_code: bool = False) -> StudySource:
    """The model and the index that a study was built with.

    Args:
        warehouse: holds the study.
        study: its name.
        trust_remote_code: whether code that comes with the model may be run.

    Raises:
        UserError: if the study is not built, its home does not name the model, the model has moved, or it needs its own
            code and that is not allowed.
    """
    source = _stored_source(warehouse, study) or _legacy_source(warehouse, study)
    model = source.model
    if model.path is not None and not model.path.is_dir():
        if model.path.is_relative_to(warehouse.root):
            raise UserError(
                f"Study {study} was read with the model in {model.path}, which this home made and does not have any "
                f"more. `latentlens-dag build {study}` in its project makes it again."
            )
        raise UserError(
            f"Study {study} was read with the model in {model.path}, which is not there. Was it moved? Correct its "
            f"`path` in the defs.yaml. {_rebuild_hint(study)}"
        )
    if model.trust_remote_code and not trust_remote_code:
        raise UserError(
            f"Study {study} was read with {model} and code that comes with this model. The code would be run with all "
            "your rights, so it is run only if you say so. Read it first; then start `latentlens-dag browse "
            "--trust-remote-code`."
        )
    return source


def _rebuild_hint(study: str) -> str:
    """The remedy; it takes seconds, because only the step that writes `shape.json` runs."""
    return f"Run `latentlens-dag build {study} --force --select study/{study}/catalog` in its project."


def _stored_source(warehouse: Warehouse, study: str) -> StudySource | None:
    """The source in `shape.json`; None where it has none."""
    shape = study_shape(warehouse, study)
    if shape.model is None:
        return None
    try:
        model, index = ModelRef.from_json(shape.model), shape.index
        if index is None:
            raise ValueError("it has no `index`.")
    except ValueError as error:
        file = warehouse.shape("study", study)
        raise UserError(f"{file} names no model and index ({error}): it is damaged. {_rebuild_hint(study)}") from error
    if model.path is not None and not model.path.is_absolute():
        return StudySource(replace(model, path=warehouse.root / model.path), index)
    relative = shape.model_in_project
    if model.path is not None and relative is not None:
        moved = Path(os.path.normpath(warehouse.root.resolve() / relative))
        model = replace(model, path=moved) if moved.is_dir() else model
    return StudySource(model, index)


def _legacy_source(warehouse: Warehouse, study: str) -> StudySource:
    """The source in a home of version 0.1, from the observed files of a local model; a model of the Hub is not there.

    Whether the model's code was run is not stored, so none is.
    """
    catalog = ArtifactStore(warehouse.root).read(f"study/{study}/catalog", None)
    if catalog is None:
        raise UserError(f"Study {study} is not built to its end yet: run `latentlens-dag build {study}`.")
    index = catalog.settings.get("index")
    observed_files = (warehouse.observed(f"study.{study}.{kind}") for kind in ("vlm", "language_model"))
    files = [Path(file) for file_list in observed_files for file in read_json_object(file_list)]
    configs = [file for file in files if file.name == "config.json"]
    if not index or not configs:
        raise UserError(
            f"The home does not say which model study {study} was read with: an earlier version of this package built "
            f"it. {_rebuild_hint(study)}"
        )
    return StudySource(ModelRef(path=min(configs, key=lambda file: len(file.parts)).parent), index)
