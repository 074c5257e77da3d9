"""Which model and which index a study was built with, as its home says in the study's `shape.json`.

A home may come from somebody else, so what it says of trust only tells that the model brings code: whether that code
is run is for the person who asks to say.
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
    """What a study's answers were made with."""

    model: ModelRef
    index_name: str


def source_fields(source: StudySource, warehouse: Warehouse) -> dict[str, Any]:
    """A study's model and index as `shape.json` has them; `study_source` reads them.

    A folder in the home's own project is named twice, by its path and relative to the warehouse, so that the project
    may be moved as a whole, and the home alone.
    """
    model, project, root = source.model, find_project(warehouse.root), warehouse.root.resolve()
    facts = {"index": source.index_name, "model": model.to_json()}
    if model.path is None:
        return facts
    path = Path(os.path.normpath(model.path.absolute()))  # not resolved: a link to a model is meant as it stands
    facts["model"] = replace(model, path=path).to_json()
    inside = project is not None and path.is_relative_to(project)
    return {**facts, "model_in_project": os.path.relpath(path, root)} if inside else facts


def recorded_source_fields(shape: Path) -> dict[str, Any]:
    """What `source_fields` gave, of a study's `shape.json`; nothing where it is not there, or damaged."""
    try:
        found = read_shape(StudyShape, shape)
    except UserError:
        return {}
    return {} if found is None else found.model_dump(include=_FIELDS, exclude_none=True)


def study_source(warehouse: Warehouse, study: str, trust_remote_code: bool = False) -> StudySource:
    """The model and the index that a study was built with.

    Args:
        warehouse: that has the study.
        study: its name.
        trust_remote_code: whether the code that comes with its model may be run, as who asks says.

    Raises:
        UserError: where the study is not built, its home does not say, the model is not where it was, or it was read
            with its own code and that is not allowed.
    """
    found = _recorded(warehouse, study) or _recorded_before(warehouse, study)
    model = found.model
    if model.path is not None and not model.path.is_dir():
        raise UserError(
            f"Study {study} was read with the model in {model.path}, which is not there. Was it moved? Correct its "
            f"`path` in the defs.yaml. {_again(study)}"
        )
    if model.trust_remote_code and not trust_remote_code:
        raise UserError(
            f"Study {study} was read with {model} and code that comes with this model. The code would be run with all "
            "your rights, so it is run only if you say so. Read it first; then start `latentlens-dag browse "
            "--trust-remote-code`."
        )
    return found


def _again(study: str) -> str:
    """The remedy, which takes seconds: the step that writes it depends on answers that are there."""
    return f"Run `latentlens-dag build {study} --force --select study/{study}/catalog` in its project."


def _recorded(warehouse: Warehouse, study: str) -> StudySource | None:
    """What `source_fields` wrote; None where nothing is written."""
    shape = study_shape(warehouse, study)
    if shape.model is None:
        return None
    try:
        model, index = ModelRef.from_json(shape.model), shape.index
        if index is None:
            raise ValueError("it has no `index`.")
    except ValueError as error:
        file = warehouse.shape("study", study)
        raise UserError(f"{file} names no model and index ({error}): it is damaged. {_again(study)}") from error
    beside = shape.model_in_project
    if model.path is not None and beside is not None:
        moved = Path(os.path.normpath(warehouse.root.resolve() / beside))
        model = replace(model, path=moved) if moved.is_dir() else model
    return StudySource(model, index)


def _recorded_before(warehouse: Warehouse, study: str) -> StudySource:
    """The same of a home of version 0.1, from what it remembers of a model's files; it has nothing of one of the Hub.

    It does not say whether the model's code was run, so none is.
    """
    catalog = ArtifactStore(warehouse.root).read(f"study/{study}/catalog", None)
    if catalog is None:
        raise UserError(f"Study {study} is not built to its end yet: run `latentlens-dag build {study}`.")
    index = catalog.settings.get("index")
    memories = (warehouse.observed(f"study.{study}.{kind}") for kind in ("vlm", "language_model"))
    files = [Path(file) for memory in memories for file in read_json_object(memory)]
    configs = [file for file in files if file.name == "config.json"]
    if not index or not configs:
        raise UserError(
            f"The home does not say which model study {study} was read with: an earlier version of this package built "
            f"it. {_again(study)}"
        )
    return StudySource(ModelRef(path=min(configs, key=lambda file: len(file.parts)).parent), index)
