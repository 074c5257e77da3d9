"""Where a study comes from and under which terms it goes out: what a release says of itself, or what a home recorded.

What a newcomer gets wrong: a release may come from a stranger. What its manifest and its card say is told, as text,
and never acted on; and what was not pulled is not known, which is said, too.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latentlens_dag.hub_datasets import COMMIT
from latentlens_dag.manifest import Manifest, Record
from latentlens_dag.queries import Dataset
from latentlens_dag.release_manifest import release_name
from latentlens_dag.warehouse import Warehouse

_CARD_BYTES = 1 << 20
_LICENCE = "## Licence"
_TERMS = {"tables": "tables", "pictures": "pictures", "sentences and texts": "texts"}


@dataclass(frozen=True)
class Terms:
    """Under which terms a release goes out, as it says itself; None where it does not say."""

    release: str
    tables: str | None = None
    pictures: str | None = None
    texts: str | None = None
    repo: str | None = None
    """user/name on the Hub."""
    commit: str | None = None
    """Of what was downloaded."""
    package: str | None = None
    """The version of this package that made it."""


def root_of(source: str | Path) -> Path | None:
    """The warehouse of a home, or the folder itself; None for what is no folder."""
    path = Path(source)
    inside = path / "warehouse"
    return inside if inside.is_dir() else path if path.is_dir() else None


def declared(source: str | Path, dataset: Dataset, study: str) -> Mapping[str, Any]:
    """What was declared of a study, as the manifest of a release has it: model, index, images, prompt and more.

    A home whose study is in no release says less: the names of its model and index, where it recorded them. Empty
    where nothing is known.
    """
    if dataset.release is not None:
        return dataset.release.studies.get(study, {})
    root = root_of(source)
    if root is None:
        return {}
    released = [record.settings["studies"][study] for record in _releases(root, study)]
    return {**_recorded(root, study), **(released[-1] if released else {})}


def model_of(facts: Mapping[str, Any]) -> str | None:
    """A model of `declared`, or its index's, in a line: its name and revision."""
    model = facts.get("model")
    if not isinstance(model, Mapping) or not model.get("name"):
        return None
    revision = model.get("revision")
    return f"{model['name']}@{str(revision)[:12]}" if revision else str(model["name"])


def terms(source: str | Path, dataset: Dataset) -> list[Terms]:
    """The terms of what is open: of the release that it is, or of each release that a home has staged."""
    if dataset.release is not None and dataset.folder is not None:
        return [_of_release(str(source), dataset.folder, dataset.release.name, dataset.release.package_version)]
    root = root_of(source)
    return [] if root is None else [_of_record(record) for record in _releases(root)]


def _of_release(source: str, folder: Path, name: str, package: str) -> Terms:
    asked = None if Path(source).exists() else release_name(source)
    commit = folder.name if COMMIT.fullmatch(folder.name) else None
    return Terms(name, **_terms_of_card(folder), repo=asked[0] if asked else None, commit=commit, package=package)


def _of_record(record: Record) -> Terms:
    said = record.settings
    tables, pictures, texts = (said.get(field) for field in ("license", "image_license", "text_license"))
    package = record.packages.get("latentlens-dag")
    return Terms(str(said.get("name")), tables, pictures, texts, repo=said.get("repo_id"), package=package)


def _terms_of_card(folder: Path) -> dict[str, str]:
    """The terms on the card of a release, which `release_card.py` wrote; none where it was not pulled."""
    try:
        with (folder / "README.md").open("rb") as file:
            text = file.read(_CARD_BYTES).decode("utf-8", "replace")
    except OSError:
        return {}
    lines = text.partition(_LICENCE)[2].partition("\n## ")[0].splitlines()
    found = (re.fullmatch(r"- ([a-z ]+): (.*)", line) for line in lines)
    return {_TERMS[one[1]]: html.unescape(one[2]) for one in found if one and one[1] in _TERMS}


def _releases(root: Path, study: str | None = None) -> Iterator[Record]:
    """The staged releases of a warehouse that have studies, or a certain one; the last made comes last."""
    records = (record for record in Manifest(root).records("release") if record.asset.endswith("/dataset"))
    for record in sorted(records, key=lambda one: one.made):
        studies = record.settings.get("studies")
        if isinstance(studies, Mapping) and (study is None or study in studies):
            yield record


def _recorded(root: Path, study: str) -> dict[str, Any]:
    """What a warehouse recorded of a study's model and index."""
    warehouse, manifest = Warehouse(root), Manifest(root)
    catalog = manifest.read(f"study/{study}/catalog", None)
    index = catalog.settings.get("index") if catalog else None
    observed = [warehouse.observed(f"study.{study}.{kind}") for kind in ("vlm", "language_model")]
    files = next((_json(path) for path in observed if path.is_file()), {})
    shape = _json(warehouse.shape("index", index)) if isinstance(index, str) else {}
    name = Path(next(iter(files))).parent.name if files else None
    facts: dict[str, Any] = {"model": {"name": name}} if name else {}
    if index:
        facts["index"] = {"name": index, "model": {"name": shape.get("language_model")}, "corpus": shape.get("corpus")}
        facts["index"]["contextual_layers"] = shape.get("layers")
    return facts


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
