"""The origin of a study and the terms of its release, from the manifest of a release or the records of a home.

Note: a release may come from a stranger. What its manifest and its card say is shown as text, and never acted on.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentlens_dag.dataset.dataset import Dataset
from latentlens_dag.errors import UserError
from latentlens_dag.hub.names import COMMIT, parse_release_name
from latentlens_dag.storage.files import read_json_object
from latentlens_dag.storage.home import find_warehouse
from latentlens_dag.storage.lineage import lineage
from latentlens_dag.storage.records import ArtifactRecord, ArtifactStore
from latentlens_dag.storage.shapes import IndexShape, StudyShape, read_shape
from latentlens_dag.storage.warehouse import Warehouse

if TYPE_CHECKING:
    import polars as pl

_CARD_BYTES = 1 << 20
_LONGEST = 300  # characters of a fact
_LICENCE = "## Licence"
_TERMS = {"tables": "tables", "pictures": "pictures", "sentences and texts": "texts"}


@dataclass(frozen=True)
class LicenseTerms:
    """The terms of a release, as it states them; None where it does not."""

    release: str
    tables: str | None = None
    pictures: str | None = None
    texts: str | None = None
    repo: str | None = None
    """user/name on the Hub."""
    commit: str | None = None
    """The commit that was downloaded."""
    package: str | None = None
    """The version of this package that made the release."""


def study_declaration(source: str | Path, dataset: Dataset, study: str) -> Mapping[str, Any]:
    """The declaration of a study, as the manifest of a release has it: model, index, images, prompt and more.

    A home whose study is in no release has less: the recorded names of its model and index. Empty if nothing is known.
    """
    if dataset.release is not None:
        return dataset.release.studies.get(study, {})
    warehouse = find_warehouse(source)
    facts = _recorded(warehouse, study)
    for record in _releases(warehouse, study):  # the last one counts
        settings = record.settings["studies"][study]
        for name in {"model", "index"} & settings.keys():
            stated = {key: value for key, value in settings[name].items() if value is not None}
            settings = {**settings, name: {**facts.get(name, {}), **stated}}
        facts = {**facts, **settings}
    return facts


def model_label(facts: Mapping[str, Any]) -> str | None:
    """The name and revision of a model in a `study_declaration`, or in its index."""
    model = facts.get("model")
    if not isinstance(model, Mapping) or not model.get("name"):
        return None
    if model.get("step") is not None:
        return f"{model['name']}, step {model['step']}"
    revision = model.get("revision")
    return f"{model['name']}@{str(revision)[:12]}" if revision else str(model["name"])


def summary_rows(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The facts of a `study_declaration` as pairs of a name and a text."""
    index, images = _within(facts, "index"), _within(facts, "images")
    kind = "Texts" if facts.get("kind") == "texts" else "Images"
    lines = [
        ("Model", _model_line(facts)),
        ("System prompt", facts.get("system_prompt")),
        ("Prompt before the image", facts.get("prompt_before")),
        ("Prompt", facts.get("prompt")),
        (kind, _joined(_count(images.get("count")), images.get("name"), _from(images))),
        ("Visual layers", _listed(facts.get("visual_layers"))),
        ("Answers", _joined(facts.get("top_k"), _unique(facts.get("unique")))),
        ("Judge", facts.get("judge")),
        ("Index", _joined(index.get("name"), f"selection {index['version']}" if index.get("version") else None)),
        ("Model of the index", _model_line(index)),
        ("Contextual layers", _listed(index.get("contextual_layers"))),
        ("Corpus", _joined(_count(index.get("sentences"), "sentences"), index.get("corpus"), _from(index))),
        ("Occurrences", _joined(_count(index.get("occurrences")), _sampled(index))),
        ("Versions", _listed(f"{name} {version}" for name, version in sorted(_within(facts, "versions").items()))),
    ]
    return [(name, str(value)[:_LONGEST]) for name, value in lines if value not in (None, "")]


def _within(facts: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = facts.get(name)
    return value if isinstance(value, Mapping) else {}


def _model_line(facts: Mapping[str, Any]) -> str:
    model = _within(facts, "model")
    if model.get("connector"):
        name = f"connector {model['connector']} after {model.get('step')} steps"
        made = [f"{asset} {version}" for asset, version in sorted(_within(model, "made_from").items())]
        return _joined(name, f"files {model['weights']}" if model.get("weights") else None, *made)
    pinned = f"revision {model['revision']}" if model.get("revision") else None
    return _joined(model.get("name"), pinned, f"files {model['weights']}" if model.get("weights") else None)


def _joined(*parts: object) -> str:
    return ", ".join(str(part) for part in parts if part not in (None, ""))


def _listed(values: object) -> str:
    return ", ".join(map(str, values)) if isinstance(values, Iterable) and not isinstance(values, str) else ""


def _count(number: object, what: str = "") -> str | None:
    return f"{number:,} {what}".strip() if isinstance(number, int) else None


def _from(facts: Mapping[str, Any]) -> str | None:
    return f"from {facts['source']}" if facts.get("source") else None


def _unique(unique: object) -> str | None:
    return f"of different {unique}s" if unique in ("word", "sentence") else None


def _sampled(index: Mapping[str, Any]) -> str | None:
    most = index.get("contexts_per_token")
    return f"at most {most} of each token, by {index.get('sampling')}" if most else None


def license_terms(source: str | Path, dataset: Dataset) -> list[LicenseTerms]:
    """The terms of an opened release, or of each release that a home has staged."""
    if dataset.release_tables is None:
        return [_of_record(record) for record in _releases(find_warehouse(source))]
    folder, manifest = dataset.release_tables.folder, dataset.release_tables.manifest
    name_on_hub = None if Path(source).exists() else parse_release_name(str(source))
    repo = name_on_hub[0] if name_on_hub else None
    commit = folder.name if COMMIT.fullmatch(folder.name) else None
    terms = _terms_of_card(folder)
    return [LicenseTerms(manifest.name, **terms, repo=repo, commit=commit, package=manifest.package_version)]


def _of_record(record: ArtifactRecord) -> LicenseTerms:
    settings = record.settings
    tables, pictures, texts = (settings.get(field) for field in ("license", "image_license", "text_license"))
    package = record.packages.get("latentlens-dag")
    return LicenseTerms(
        str(settings.get("name")), tables, pictures, texts, repo=settings.get("repo_id"), package=package
    )


def _terms_of_card(folder: Path) -> dict[str, str]:
    """The terms on the card of a release, which `publish/card.py` writes; empty if it was not pulled."""
    try:
        with (folder / "README.md").open("rb") as file:
            text = file.read(_CARD_BYTES).decode("utf-8", "replace")
    except OSError:
        return {}
    lines = text.partition(_LICENCE)[2].partition("\n## ")[0].splitlines()
    found = (re.fullmatch(r"- ([a-z ]+): (.*)", line) for line in lines)
    return {_TERMS[one[1]]: html.unescape(one[2]) for one in found if one and one[1] in _TERMS}


def _releases(warehouse: Warehouse, study: str | None = None) -> Iterator[ArtifactRecord]:
    """The staged releases of a warehouse that have studies, or a certain one, oldest first."""
    for record in sorted(ArtifactStore(warehouse.root).records("release"), key=lambda record: record.created_at):
        studies = record.settings.get("studies") if record.asset.endswith("/dataset") else None
        if isinstance(studies, Mapping) and (study is None or study in studies):
            yield record


def _recorded(warehouse: Warehouse, study: str) -> dict[str, Any]:
    """The recorded facts of a study's model and index."""
    manifest = ArtifactStore(warehouse.root)
    catalog = manifest.read(f"study/{study}/catalog", None)
    facts: dict[str, Any] = {"versions": catalog.packages} if catalog else {}
    observed = [warehouse.observed(f"study.{study}.{kind}") for kind in ("vlm", "language_model")]
    if checkpoint := _checkpoint(warehouse, study):
        facts["model"] = checkpoint
    elif files := next((read_json_object(path) for path in observed if path.is_file()), {}):
        facts["model"] = {"name": Path(next(iter(files))).parent.name, "weights": _weights(manifest, study)}
    if catalog and (index := catalog.settings.get("index")):
        shape = None
        with suppress(UserError, OSError):  # what the study's own catalog says is shown all the same
            shape = read_shape(IndexShape, warehouse.shape("index", index))
        selection = manifest.read(f"index/{index}/selection", None)
        facts["index"] = {"name": index, "version": selection and selection.data_version}
        if shape is not None:
            facts["index"] |= {"corpus": shape.corpus, "contextual_layers": shape.layers}
            facts["index"]["model"] = {"name": shape.language_model}
    return facts


def _checkpoint(warehouse: Warehouse, study: str) -> dict[str, Any] | None:
    """The facts of a study's model where it is a connector's: which, its files, and what these were made from."""
    with suppress(UserError):  # a damaged shape.json
        shape = read_shape(StudyShape, warehouse.shape("study", study))
        if shape is not None and shape.connector is not None:
            store, named = ArtifactStore(warehouse.root), {"connector": shape.connector, "step": shape.step}
            asset, weights = _model_input(store, study)
            return {"name": shape.connector, **named, "weights": weights, "made_from": sources_of(store, asset)}
    return None


def _model_input(store: ArtifactStore, study: str) -> tuple[str, str | None]:
    """The checkpoint that a study's tokens were read with, and its version; empty and none where nothing is built."""
    for record in store.records(f"study/{study}/visual_tokens"):
        for asset, version in record.inputs.items():
            if asset.startswith("connector/"):
                return asset, version
    return "", None


def sources_of(store: ArtifactStore, asset: str) -> dict[str, str]:
    """The sources that an artifact was made from, at any distance, with their versions; empty without a record."""
    record = store.read(asset, None)
    if record is None:
        return {}
    return {one.label: one.version for one in lineage(store, record) if one.record is None}


def _weights(manifest: ArtifactStore, study: str) -> str | None:
    """The hash of the model files that the study was made with."""
    for record in manifest.records(f"study/{study}/visual_tokens"):
        found = (record.inputs.get(f"study/{study}/{kind}") for kind in ("vlm", "language_model"))
        if weights := next((one for one in found if one), None):
            return weights
    return None


def provenance(source: str | Path, study: str) -> pl.DataFrame:
    """The steps that made a study, by the records of a home: one row per step, for its last run.

    Empty if the source has no records.
    """
    import polars as pl

    steps: dict[str, dict[str, str]] = {}
    for record in sorted(ArtifactStore(find_warehouse(source).root).records(), key=lambda record: record.created_at):
        if record.asset.startswith(f"study/{study}/"):
            settings = ", ".join(f"{name}: {value}" for name, value in record.settings.items())
            packages = ", ".join(f"{name} {version}" for name, version in record.packages.items())
            step = record.asset.removeprefix(f"study/{study}/")
            steps[step] = {"step": step, "made": record.created_at, "settings": settings, "packages": packages}
    return pl.DataFrame(list(steps.values())).sort("step") if steps else pl.DataFrame()
