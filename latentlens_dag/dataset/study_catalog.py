"""The catalog of a study: all its tables in one DuckDB file, sorted for look-ups by image and token.

A browser asks for one image, token or sentence at a time, of tables that fill hundreds of Parquet files; the catalog
answers in milliseconds. It holds the study's own tables, its images and their regions (or its texts), and the sentences
and occurrences of its answers. It is a copy for fast reading, never the source; `build` writes it anew.
"""

from __future__ import annotations

import glob
from pathlib import Path

from latentlens_dag.errors import UserError
from latentlens_dag.schema import TABLES
from latentlens_dag.sql.connections import scratch_connection
from latentlens_dag.sql.quoting import create_views, identifier, literal
from latentlens_dag.sql.views import DECLARED, count_sets, current_files, table_patterns, view_sql
from latentlens_dag.storage.files import atomic_path
from latentlens_dag.storage.paths import plain_file
from latentlens_dag.storage.warehouse import Warehouse

_MEMORY = "1GB"  # 23 million rows take 1.2 GB and 68 s of the processor; without a limit 5.5 GB and 44 s
ROW_ORDER = {
    # Rows of one image at one layer lie together: the gallery of a large study takes half the time, a token no more.
    "neighbors": "image_id, visual_layer, lens, token_index, rank",
    "visual_tokens": "image_id, token_index",
    "patch_truth": "image_id, token_index",
    "judgements": "image_id, visual_layer, lens, token_index, judge",
    "interpretability": "lens, visual_layer, judge, patch_group, k, measure",
    "lens_differences": "comparison, judge, patch_group, k, measure, lens, other_lens, visual_layer",
    "study_connectors": "connector, step",
    "corpus_ablation": "fraction, visual_layer, judge, patch_group, k, measure",
    "layer_alignment": "visual_layer, contextual_layer",
    "diversity": "lens, visual_layer",
    "candidates": "lens, token_id",
    "state_statistics": "source, layer",
    "sinks": "image_id, visual_layer, token_index",
    "images": "image_id",
    "regions": "image_id, region_id",
    "sentences": "sentence_id",
    "occurrences": "key, index",
    "text_tokens": "image_id, token_index",
    "texts": "text_id",
    "captions": "image_id, caption_index",
    "generated_captions": "image_id",
    "caption_objects": "image_id, name",
    "caption_scores": "kind, measure",
    "connectors": "connector",
    "losses": "connector, step",
}
"""The columns by which each table is sorted; total, so that equal rows make equal bytes."""
# Tables shared with other studies are cut to the rows that this study's own tables, written before, refer to.
_REFERENCED = {
    "images": "image_id IN (SELECT image_id FROM catalog.visual_tokens)",
    "regions": "image_id IN (SELECT image_id FROM catalog.visual_tokens)",
    "sentences": "sentence_id IN (SELECT sentence_id FROM catalog.neighbors)",
    "occurrences": "key IN (SELECT key FROM catalog.neighbors)",
    "texts": "text_id IN (SELECT image_id FROM catalog.text_tokens)",
    "captions": "image_id IN (SELECT image_id FROM catalog.visual_tokens)",
    "connectors": "connector IN (SELECT connector FROM catalog.study_connectors)",
    "losses": "connector IN (SELECT connector FROM catalog.study_connectors)",
}


def write_catalog(
    warehouse: Warehouse, study: str, path: Path, *, index: str | None = None, images: str | None = None
) -> None:
    """Write the catalog of a study, atomically.

    Args:
        warehouse: where its tables lie.
        study: its name.
        path: the .duckdb file to write, usually `warehouse.catalog(study)`.
        index: the study's index, if the warehouse has several with the same corpus; by default the occurrences of
            every index that has the answers' keys.
        images: the study's image set, if another one has the same pictures with other names or regions; by default
            any set that has them.

    Raises:
        UserError: if the warehouse has nothing of the study.
    """
    files = _files(warehouse, study, index, images)
    with (
        atomic_path(path) as temporary,
        plain_file(temporary) as database,
        scratch_connection(path, _MEMORY) as connection,
    ):
        create_views(connection, _views(warehouse.root, files))
        connection.execute(f"ATTACH {literal(str(database))} AS catalog")
        for table, order in ROW_ORDER.items():
            needed = {"connectors": "study_connectors", "losses": "study_connectors"}.get(table, table)
            if table in DECLARED and not (files[table] and files[needed]):
                continue  # as in catalogs from before there was such a table, which need not be written anew
            where = f"WHERE {_REFERENCED[table]}" if table in _REFERENCED else ""
            name = identifier(table)
            connection.execute(f"CREATE TABLE catalog.{name} AS SELECT * FROM {name} {where} ORDER BY {order}")
        connection.execute("DETACH catalog")


def _files(warehouse: Warehouse, study: str, index: str | None, images: str | None) -> dict[str, list[Path]]:
    root = warehouse.root
    patterns = table_patterns(glob.escape(study), *(glob.escape(name) if name else "*" for name in (index, images)))
    files = {table: current_files(root, patterns[table]) for table in TABLES}
    if not files["visual_tokens"] and not files["neighbors"]:
        known = sorted(folder.name for folder in warehouse.study("x").parent.glob("*") if folder.is_dir())
        raise UserError(
            f"{root} has no results of study {study!r}; it has {', '.join(known) or 'no study yet'}. "
            "Build the study first, or correct its name."
        )
    return files


def _views(root: Path, files: dict[str, list[Path]]) -> dict[str, str]:
    return {
        table: view_sql(table, [glob.escape(str(file)) for file in found], count_sets(root, found) > 1)
        for table, found in files.items()
    }
