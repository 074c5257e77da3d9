"""The `shape.json` of a study: which parts it has."""

from __future__ import annotations

import json
from typing import Any

from latentlens_dag.errors import UserError
from latentlens_dag.storage.warehouse import Warehouse


def study_shape(warehouse: Warehouse, study: str) -> dict[str, Any]:
    """What a study's `shape.json` says: parts, visual_layers, lenses, and `of`: texts for a study of texts.

    Raises:
        UserError: where the study is not built.
    """
    path = warehouse.shape("study", study)
    if not path.is_file():
        raise UserError(f"Study {study} is not built yet: run `latentlens-dag build {study}`.")
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found
