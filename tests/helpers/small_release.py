"""A small release of the tables of `small_dataset.py`: what the tests of pulling and reading releases read."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from latentlens_dag.release.manifest import SCHEMA_VERSION, build_manifest, manifest_text
from latentlens_dag.release.reader import schemas_at
from latentlens_dag.schema import DECLARED_LENSES, TABLES
from latentlens_dag.storage.hashing import text_id
from latentlens_dag.storage.parquet import write_parquet
from latentlens_dag.study.answer_statistics import diversity, layer_alignment
from latentlens_dag.study.differences import lens_differences
from latentlens_dag.study.interpretability import interpretability
from latentlens_dag.study.regions_judge import judge_regions
from tests.helpers.patch_truths import truth_of
from tests.helpers.small_dataset import (
    ANIMALS,
    LAYERS,
    SENTENCES_OF,
    TOP_K,
    ablation,
    by_layer,
    image_id,
    images,
    neighbors,
    null_of,
    regions,
    sinks,
    state_statistics,
    study_connectors,
    visual_tokens,
)

STUDIES = {"one": ANIMALS, "two": ANIMALS[:1]}
Tables = dict[str, pa.Table]
"""Per path without .parquet."""


def release_tables(studies: dict[str, tuple[str, ...]] = STUDIES) -> Tables:
    """The tables of a release, a part per image, per path."""
    animals = sorted({animal for names in studies.values() for animal in names})
    found: Tables = {}
    for animal in animals:
        part = image_id(animal)
        found[f"images/{part}"] = as_released(images((animal,)))
        found[f"regions/{part}"] = regions((animal,))
    names_of = ("interpretability", "lens_differences", "corpus_ablation", "layer_alignment", "diversity")
    summaries: dict[str, list[pa.Table]] = {name: [] for name in names_of}
    summaries["state_statistics"] = [state_statistics(study) for study in studies]
    summaries["study_connectors"] = [study_connectors(study) for study in studies]
    summaries["sinks"] = [sinks(study, names) for study, names in studies.items()]
    for study, names in studies.items():
        own = tables_of_study(study, names)
        for name, table in own.items():
            found |= {f"{name}/{study}/{part}": rows for part, rows in by_image(table).items()}
        summaries["interpretability"].append(interpretability([own["judgements"]], TOP_K))
        summaries["lens_differences"].append(lens_differences(study, by_layer([own["judgements"]]), top_k=2))
        summaries["corpus_ablation"].append(ablation([own["judgements"]]))
        summaries["layer_alignment"].append(layer_alignment([own["neighbors"]], null_of(own["neighbors"])))
        summaries["diversity"].append(diversity([own["neighbors"]]))
    for text in SENTENCES_OF.values():
        row = {"sentence_id": text_id(text), "text": text}
        found[f"sentences/{text_id(text)[:2]}"] = pa.Table.from_pylist([row], schema=TABLES["sentences"])
    return found | {name: pa.concat_tables(tables) for name, tables in summaries.items()}


def tables_of_study(study: str, animals: tuple[str, ...]) -> Tables:
    """The tables of all images of a study, by their names."""
    layers = [neighbors(study, animals, lens, layer) for layer in LAYERS for lens in DECLARED_LENSES]
    answers, tokens = pa.concat_tables(layers), visual_tokens(study, animals)
    truth = truth_of(regions(animals), tokens, images(animals))
    return {"neighbors": answers, "judgements": judge_regions(answers, truth), "visual_tokens": tokens}


def by_image(table: pa.Table) -> Tables:
    """A table's rows by the ids of their images, in the order of a release."""
    order = [(name, "ascending") for name in ORDER if name in table.column_names]
    ids = table["image_id"].unique().to_pylist()
    return {one: table.filter(pc.equal(table["image_id"], one)).sort_by(order) for one in ids}


ORDER = ("visual_layer", "lens", "token_index", "rank")


def as_released(table: pa.Table) -> pa.Table:
    """Images with their thumbnails as pictures of the library `datasets`."""
    schema = schemas_at(SCHEMA_VERSION)["images"]
    pictures = [{"bytes": one, "path": None} for one in table["thumbnail"].to_pylist()]
    return table.drop("thumbnail").append_column(schema.field("thumbnail"), pa.array(pictures, schema[-1].type))


def write_release(
    folder: Path,
    change: Callable[[Tables], object] | None = None,
    version: int | None = None,
    tables: Tables | None = None,
) -> Path:
    """Write a release; `change` may change its tables before."""
    found = release_tables() if tables is None else tables
    if change:
        change(found)
    schemas = schemas_at(SCHEMA_VERSION if version is None else version)
    for path, table in found.items():
        name = path.partition("/")[0]
        schema = schemas[name] if table.schema.names == schemas[name].names else table.schema
        write_parquet(table, folder / f"{path}.parquet", schema)
    (folder / "queries").mkdir(exist_ok=True)
    (folder / "queries" / "words.sql").write_text("FROM neighbors\n", encoding="utf-8")
    (folder / "README.md").write_text("# A small release\n", encoding="utf-8")
    write_manifest(folder)
    return folder


def write_manifest(folder: Path) -> None:
    """Write the manifest anew, as the author of the files would."""
    studies: dict[str, dict[str, Any]] = {name: {"kind": "images"} for name in STUDIES}
    text = manifest_text(build_manifest(folder, "tables", "small", studies, "0.1.0"))
    (folder / "manifest.json").write_text(text, encoding="utf-8")


def files_of(folder: Path, leaving: Iterable[str] = ()) -> dict[str, bytes]:
    """A folder as the files of a repository."""
    found = {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    return {path: content for path, content in found.items() if path not in set(leaving)}
