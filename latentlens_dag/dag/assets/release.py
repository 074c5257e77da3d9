"""The assets of a release: the staged dataset, and the one that sends it to the Hub on request.

Note: `published` is not part of any build, plan, job or schedule (`keys.MANUAL_ONLY`). It can be materialized in the UI
only, and does nothing there unless the repository's name is typed into its run config.
"""

# `from __future__ import annotations` is left out: Dagster resolves these annotations itself.
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import dagster as dg

from latentlens_dag.dag import keys
from latentlens_dag.dag.recording import result
from latentlens_dag.dag.resources import WarehouseResource
from latentlens_dag.dag.specs import (
    CheckpointSpec,
    CorpusSpec,
    ImageSetSpec,
    IndexSpec,
    ReleaseSpec,
    StudySpec,
    TextSetSpec,
)
from latentlens_dag.dag.versions import VersionFields, version_fields
from latentlens_dag.errors import UserError
from latentlens_dag.hub.datasets import HubColumn
from latentlens_dag.models.model_ref import ModelRef
from latentlens_dag.publish.stage_index import ReleasedIndex, stage_index
from latentlens_dag.publish.stage_results import ReleasedStudy, stage_tables
from latentlens_dag.release.manifest import MANIFEST, ReleaseManifest
from latentlens_dag.schema import LENSES
from latentlens_dag.storage.hashing import hash_file
from latentlens_dag.storage.warehouse import Warehouse

_TABLES, _INDEX, _PUBLISHED = 2, 1, 1  # algorithms


class Confirmation(dg.Config):
    """The run config without which nothing is sent to the Hub."""

    confirm: str = ""
    """The release's repo_id, user/name."""


def tables_release(release: ReleaseSpec, studies: Sequence[StudySpec]) -> dg.Definitions:
    """catalogs of the studies -> dataset -> published."""
    released = [
        ReleasedStudy(study.name, study.index.corpus.name, study.index.name, _declared(study), _label(study.model_key))
        for study in studies
    ]
    deps = [key for study in studies for key in (keys.study(study.name, "catalog"), study.model_key)]
    deps += [keys.index(study.index.name, "selection") for study in studies]  # how many occurrences there are
    deps += [keys.corpus(study.index.corpus.name, "sentences") for study in studies]
    settings = {"thumbnails": release.thumbnails, "sentences": release.sentences}

    def stage(paths: Warehouse) -> ReleaseManifest:
        return stage_tables(paths, release.about, released, thumbnails=release.thumbnails, sentences=release.sentences)

    declared = {study.name: study.declared for study in released}
    version = version_fields(_TABLES, **asdict(release.about), **settings, studies=declared)
    return _definitions(release, list(dict.fromkeys(deps)), version, stage)


def index_release(release: ReleaseSpec, index: IndexSpec) -> dg.Definitions:
    """layer tables, occurrences and sentences -> dataset -> published."""
    name = index.name
    model = keys.index(name, "language_model")
    deps = [keys.table(name, layer) for layer in index.layers]
    deps += [keys.index(name, "occurrences"), keys.corpus(index.corpus.name, "sentences"), model]
    released = ReleasedIndex(name, index.corpus.name, declared_index(index), _label(model))
    settings: dict[str, Any] = {"sentences": release.sentences, "vectors": release.vectors}

    def stage(paths: Warehouse) -> ReleaseManifest:
        every = release.sentences == "all"
        return stage_index(paths, release.about, released, every_sentence=every, vectors=release.vectors)

    version = version_fields(_INDEX, **asdict(release.about), **settings, index=released.declared)
    return _definitions(release, deps, version, stage)


def _definitions(
    release: ReleaseSpec, deps: list[dg.AssetKey], version: VersionFields, stage: Callable[[Warehouse], ReleaseManifest]
) -> dg.Definitions:
    group = f"release/{release.name}"

    @dg.asset(
        key=keys.release(release.name, "dataset"),
        deps=deps,
        group_name=group,
        kinds={"parquet", "huggingface"},
        **version,
        description=f"The dataset repository {release.repo_id} as a folder: tables, card, manifest. Nothing is sent.",
    )
    def dataset(warehouse: WarehouseResource) -> dg.MaterializeResult:
        manifest, folder = stage(warehouse.paths), warehouse.paths.release(release.name)
        facts = {
            "dagster/row_count": sum(table.rows for table in manifest.tables.values()),
            "size_bytes": sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()),
            "files": len(manifest.files) + 1,
            "rows": {name: table.rows for name, table in manifest.tables.items()},
            "card": dg.MetadataValue.md((folder / "README.md").read_text(encoding="utf-8")),
        }
        return result(None, hash_file(folder / MANIFEST), facts, [folder])

    published = version_fields(_PUBLISHED, repo_id=release.repo_id)

    @dg.asset(
        key=keys.release(release.name, "published"),
        deps=[dataset],
        group_name=group,
        kinds={"huggingface"},
        code_version=published["code_version"],
        metadata={**published["metadata"], keys.MANUAL_ONLY: True},
        description=f"The dataset on the Hub, as {release.repo_id}. It is sent only where somebody materializes this "
        f"asset with the run config `confirm: {release.repo_id}`; no build does.",
    )
    def on_the_hub(config: Confirmation, warehouse: WarehouseResource) -> dg.MaterializeResult:
        _require_confirmation(config.confirm, release)
        from huggingface_hub import constants

        from latentlens_dag.publish.publish import publish

        publication = publish(warehouse.paths.release(release.name), release.repo_id)
        url = dg.MetadataValue.url(f"{constants.ENDPOINT}/datasets/{release.repo_id}")
        return dg.MaterializeResult(
            data_version=dg.DataVersion(publication.commit),
            metadata={"commit": publication.commit, "repository": url},
        )

    return dg.Definitions(assets=[dataset, on_the_hub])


def _require_confirmation(confirm: str, release: ReleaseSpec) -> None:
    if confirm != release.repo_id:
        typed = f"`confirm: {confirm}`" if confirm else "No `confirm`"
        raise UserError(
            f"{typed} was given, so nothing was sent. Publishing is for all to see: to send release {release.name} to "
            f"the Hub, type `confirm: {release.repo_id}` into the run config, or run `latentlens-dag publish "
            f"{release.name}`."
        )


def _label(key: dg.AssetKey) -> str:
    return key.to_user_string()


def _declared(study: StudySpec) -> dict[str, Any]:
    """The origin of a study by its YAML, for the manifest of a release."""
    return {
        "kind": "texts" if study.of_texts else "images",
        "model": _named(study.model),
        **({"prompt": None} if study.of_texts else study.prompt_settings),
        "visual_layers": study.visual_layers,
        "lenses": [lens for lens in LENSES if lens in study.lenses],
        "top_k": study.top_k,
        "unique": study.unique,
        "judge": "regions" if study.judged else "none",
        "images": {"name": study.inputs.name, "source": _source_of(study.inputs)},
        "index": declared_index(study.index),
    }


def declared_index(index: IndexSpec) -> dict[str, Any]:
    """The origin of an index by its YAML, for the manifest of a release."""
    fields = ("contexts_per_token", "sampling", "fraction", "min_position", "dedup")
    return {
        "name": index.name,
        "corpus": index.corpus.name,
        **{field: getattr(index, field) for field in fields},
        "model": _named(index.model),
        "contextual_layers": index.layers,
        "source": _source_of(index.corpus),
    }


def _named(model: ModelRef | CheckpointSpec) -> dict[str, Any]:
    """A model without its path on this machine; that of a connector by the connector's name."""
    if isinstance(model, CheckpointSpec):
        own = {"connector": model.connector, "step": model.step}
        return {"name": model.connector, "revision": None, **own, "language_model": _named(model.language_model)}
    return {"name": model.name, "revision": model.revision}


def _source_of(inputs: CorpusSpec | ImageSetSpec | TextSetSpec) -> str:
    """The origin of sentences, texts or images: user/dataset@commit, or the last part of a path."""
    source = inputs.source
    if isinstance(source, HubColumn):
        return f"{source.dataset}@{source.revision}"
    return source.name if isinstance(source, Path) else source.path.name
