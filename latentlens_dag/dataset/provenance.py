"""Where a study comes from and under which terms it goes out: what a release says of itself, or what a home recorded.

What a newcomer gets wrong: a release may come from a stranger. What its manifest and its card say is told, as text,
and never acted on; and what was not pulled is not known, which is said, too.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentlens_dag.dataset.dataset import Dataset
from latentlens_dag.hub.names import COMMIT, parse_release_name
from latentlens_dag.storage.files import read_json_object
from latentlens_dag.storage.records import ArtifactRecord, ArtifactStore
from latentlens_dag.storage.shapes import IndexShape, read_shape
from latentlens_dag.storage.warehouse import Warehouse

if TYPE_CHECKING:
    import polars as pl

_CARD_BYTES = 1 << 20
_LONGEST = 300  # characters of a fact
_LICENCE = "## Licence"
_TERMS = {"tables": "tables", "pictures": "pictures", "sentences and texts": "texts"}


@dataclass(frozen=True)
class LicenseTerms:
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


def study_declaration(source: str | Path, dataset: Dataset, study: str) -> Mapping[str, Any]:
    """What was declared of a study, as the manifest of a release has it: model, index, images, prompt and more.

    A home whose study is in no release says less: the names of its model and index, where it recorded them. Empty
    where nothing is known.
    """
    if dataset.release is not None:
        return dataset.release.studies.get(study, {})
    root = root_of(source)
    if root is None:
        return {}
    found = _recorded(root, study)
    for record in _releases(root, study):  # what was declared for the last one counts
        said = record.settings["studies"][study]
        parts = {name: {**found.get(name, {}), **_known(said[name])} for name in ("model", "index") if name in said}
        found = {**found, **said, **parts}
    return found


def model_label(facts: Mapping[str, Any]) -> str | None:
    """A model of `study_declaration`, or its index's, in a line: its name and revision."""
    model = facts.get("model")
    if not isinstance(model, Mapping) or not model.get("name"):
        return None
    revision = model.get("revision")
    return f"{model['name']}@{str(revision)[:12]}" if revision else str(model["name"])


def summary_rows(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What `study_declaration` knows as lines to read: what it is about, and what is known of it."""
    index, shown = _within(facts, "index"), _within(facts, "images")
    kind = "Texts" if facts.get("kind") == "texts" else "Images"
    lines = [
        ("Model", _model_line(facts)),
        ("Prompt", facts.get("prompt")),
        (kind, _joined(_count(shown.get("count")), shown.get("name"), _from(shown))),
        ("Visual layers", _listed(facts.get("visual_layers"))),
        ("Answers", _joined(facts.get("top_k"), _different(facts.get("unique")))),
        ("Judge", facts.get("judge")),
        ("Index", _joined(index.get("name"), f"selection {index['version']}" if index.get("version") else None)),
        ("Model of the index", _model_line(index)),
        ("Contextual layers", _listed(index.get("contextual_layers"))),
        ("Corpus", _joined(_count(index.get("sentences"), "sentences"), index.get("corpus"), _from(index))),
        ("Occurrences", _joined(_count(index.get("occurrences")), _sampled(index))),
        ("Versions", _listed(f"{name} {version}" for name, version in sorted(_within(facts, "versions").items()))),
    ]
    return [(name, str(value)[:_LONGEST]) for name, value in lines if value not in (None, "")]


def _known(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in facts.items() if value is not None}


def _within(facts: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = facts.get(name)
    return found if isinstance(found, Mapping) else {}


def _model_line(facts: Mapping[str, Any]) -> str:
    model = _within(facts, "model")
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


def _different(unique: object) -> str | None:
    return f"of different {unique}s" if unique in ("word", "sentence") else None


def _sampled(index: Mapping[str, Any]) -> str | None:
    most = index.get("contexts_per_token")
    return f"at most {most} of each token, by {index.get('sampling')}" if most else None


def license_terms(source: str | Path, dataset: Dataset) -> list[LicenseTerms]:
    """The terms of what is open: of the release that it is, or of each release that a home has staged."""
    if dataset.release is not None and dataset.folder is not None:
        return [_of_release(str(source), dataset.folder, dataset.release.name, dataset.release.package_version)]
    root = root_of(source)
    return [] if root is None else [_of_record(record) for record in _releases(root)]


def _of_release(source: str, folder: Path, name: str, package: str) -> LicenseTerms:
    asked = None if Path(source).exists() else parse_release_name(source)
    commit = folder.name if COMMIT.fullmatch(folder.name) else None
    return LicenseTerms(
        name, **_terms_of_card(folder), repo=asked[0] if asked else None, commit=commit, package=package
    )


def _of_record(record: ArtifactRecord) -> LicenseTerms:
    said = record.settings
    tables, pictures, texts = (said.get(field) for field in ("license", "image_license", "text_license"))
    package = record.packages.get("latentlens-dag")
    return LicenseTerms(str(said.get("name")), tables, pictures, texts, repo=said.get("repo_id"), package=package)


def _terms_of_card(folder: Path) -> dict[str, str]:
    """The terms on the card of a release, which `publish/card.py` wrote; none where it was not pulled."""
    try:
        with (folder / "README.md").open("rb") as file:
            text = file.read(_CARD_BYTES).decode("utf-8", "replace")
    except OSError:
        return {}
    lines = text.partition(_LICENCE)[2].partition("\n## ")[0].splitlines()
    found = (re.fullmatch(r"- ([a-z ]+): (.*)", line) for line in lines)
    return {_TERMS[one[1]]: html.unescape(one[2]) for one in found if one and one[1] in _TERMS}


def _releases(root: Path, study: str | None = None) -> Iterator[ArtifactRecord]:
    """The staged releases of a warehouse that have studies, or a certain one; the last made comes last."""
    records = (record for record in ArtifactStore(root).records("release") if record.asset.endswith("/dataset"))
    for record in sorted(records, key=lambda record: record.created_at):
        studies = record.settings.get("studies")
        if isinstance(studies, Mapping) and (study is None or study in studies):
            yield record


def _recorded(root: Path, study: str) -> dict[str, Any]:
    """What a warehouse recorded of a study's model and index."""
    warehouse, manifest = Warehouse(root), ArtifactStore(root)
    catalog = manifest.read(f"study/{study}/catalog", None)
    facts: dict[str, Any] = {"versions": catalog.packages} if catalog else {}
    observed = [warehouse.observed(f"study.{study}.{kind}") for kind in ("vlm", "language_model")]
    if files := next((read_json_object(path) for path in observed if path.is_file()), {}):
        facts["model"] = {"name": Path(next(iter(files))).parent.name, "weights": _weights(manifest, study)}
    if catalog and (index := catalog.settings.get("index")):
        shape = read_shape(IndexShape, warehouse.shape("index", index))
        selection = manifest.read(f"index/{index}/selection", None)
        facts["index"] = {"name": index, "version": selection and selection.data_version}
        if shape is not None:
            facts["index"] |= {"corpus": shape.corpus, "contextual_layers": shape.layers}
            facts["index"]["model"] = {"name": shape.language_model}
    return facts


def _weights(manifest: ArtifactStore, study: str) -> str | None:
    """The hash of the model's files that the study was made with."""
    for record in manifest.records(f"study/{study}/visual_tokens"):
        found = (record.inputs.get(f"study/{study}/{kind}") for kind in ("vlm", "language_model"))
        if weights := next((one for one in found if one), None):
            return weights
    return None


def provenance(source: str | Path, study: str) -> pl.DataFrame:
    """What the manifest of a home says of how a study was made: one row per step, the last run of it.

    Empty where the source carries no manifest.
    """
    import polars as pl

    path = Path(source)
    root = path / "warehouse" if (path / "warehouse").is_dir() else path
    steps: dict[str, dict[str, str]] = {}
    for record in sorted(ArtifactStore(root).records() if path.is_dir() else (), key=lambda record: record.created_at):
        if record.asset.startswith(f"study/{study}/"):
            settings = ", ".join(f"{name}: {value}" for name, value in record.settings.items())
            packages = ", ".join(f"{name} {version}" for name, version in record.packages.items())
            step = record.asset.removeprefix(f"study/{study}/")
            steps[step] = {"step": step, "made": record.created_at, "settings": settings, "packages": packages}
    return pl.DataFrame(list(steps.values())).sort("step") if steps else pl.DataFrame()
