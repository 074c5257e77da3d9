"""The Parquet files of each table of a warehouse, and the SQL of the views over them.

Note: an image, text or sentence may lie in two sets or corpora. The views of images, regions, texts and sentences
therefore drop repetitions where there is more than one, or every join would double.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from pathlib import Path

from latentlens_dag.schema import HUMAN_JUDGEMENTS, LENSES, TABLES
from latentlens_dag.sql.quoting import SQL_TYPES, empty_sql, identifier, literal
from latentlens_dag.storage.shapes import KINDS, Shape, read_shape
from latentlens_dag.storage.warehouse import Warehouse

IDENTITY = {
    "images": ["image_id"],
    "regions": ["image_id", "region_id"],
    "captions": ["image_id", "caption", "patches"],
    "sentences": ["sentence_id"],
    "texts": ["text_id"],
}
"""Tables whose rows may repeat across sets, and the columns that identify a row."""

SUMMARIES = (
    "interpretability",
    "lens_differences",
    "study_connectors",
    "caption_objects",
    "caption_scores",
    "corpus_ablation",
    "layer_alignment",
    "diversity",
    "candidates",
    "state_statistics",
    "sinks",
)
"""Tables with one file per study."""

DECLARED = (
    "study_connectors",
    "caption_objects",
    "caption_scores",
    "generated_captions",
    "connectors",
    "losses",
    "captions",
)
"""Those that a catalog has only where its study has rows of them; without it is empty."""

_ANY = "*"
_NUMBER = re.compile(r"(layer|batch|shard|regions|captions)_00(?=/|\.parquet$)")


def table_patterns(study: str = _ANY, index: str = _ANY, images: str = _ANY) -> dict[str, list[str]]:
    """Glob patterns of each table's Parquet files, relative to the warehouse; the arguments are patterns too."""
    warehouse = Warehouse(Path())
    paths = {
        "neighbors": [warehouse.neighbors(study, lens, 0, 0) for lens in LENSES],
        "visual_tokens": [warehouse.visual_tokens(study, 0)],
        "patch_truth": [warehouse.patch_truth(study, 0)],
        "judgements": [warehouse.judgements(study, 0, 0)],
        **{name: [warehouse.summary(study, name)] for name in SUMMARIES},
        "sentences": [warehouse.sentences(_ANY)],
        "occurrences": [warehouse.occurrences(index, 0)],
        "images": [warehouse.pictures(images, 0)],
        "regions": [warehouse.regions(images, 0)],
        "captions": [warehouse.captions(images, 0)],
        "texts": [warehouse.texts(_ANY, 0)],
        "text_tokens": [warehouse.text_tokens(study, 0)],
        "generated_captions": [warehouse.generated_captions(study, 0)],
        "connectors": [warehouse.connector_facts(_ANY)],
        "losses": [warehouse.losses(_ANY)],
    }
    # The number of a layer, batch or shard ends a name: layer_00, batch_00.parquet. Study names stay as they are.
    return {
        table: [
            re.sub(r"(layer|batch|shard|regions|captions)_00(?=/|\.parquet$)", r"\1_*", path.as_posix())
            for path in paths
        ]
        for table, paths in paths.items()
    }


def current_files(root: Path, patterns: Sequence[str]) -> list[Path]:
    """The files below `root` that the patterns name and that their set still has, in order of their paths."""
    found = {path.relative_to(root) for pattern in patterns for path in root.glob(pattern)}
    shapes = {parts: _shape(root, *parts) for parts in {file.parts[:2] for file in found}}
    return [
        root / file
        for file in sorted(found)
        if (shape := shapes[file.parts[:2]]) is None or shape.lists(file.relative_to(*file.parts[:2]))
    ]


def _shape(root: Path, kind: str, name: str) -> Shape | None:
    model = Shape if kind == "index" else KINDS.get(kind)  # its `parts` are enough: old homes have indexes without more
    return None if model is None else read_shape(model, Warehouse(root).shape(kind, name))


def count_sets(root: Path, files: Sequence[Path]) -> int:
    """The number of corpora, sets or studies that the files belong to."""
    return len({file.relative_to(root).parts[:2] for file in files})


def view_sql(table: str, sources: Sequence[str], several: bool = False) -> str:
    """The SELECT of a table over Parquet.

    Args:
        table: a name of TABLES.
        sources: files or glob patterns, each with at least one match; none gives an empty table.
        several: whether rows may repeat, because more than one set is read (IDENTITY).
    """
    if not sources:
        return empty_sql(TABLES[table])
    rows = f"SELECT * FROM read_parquet([{', '.join(literal(source) for source in sources)}])"
    if several and table in IDENTITY:
        rows = f"SELECT DISTINCT ON ({', '.join(IDENTITY[table])}) * FROM ({rows})"
    return rows


def with_text_id(table: str, select: str, studies: Collection[str]) -> str:
    """The SELECT of a table with the column text_id, for joins with `texts`: what image_id holds in studies of texts.

    Args:
        table: a name of TABLES, or human_judgements; others, and those without an image, stay as they are.
        select: its SELECT.
        studies: those of texts; where there are none, no table has the column.
    """
    schema = HUMAN_JUDGEMENTS if table == "human_judgements" else TABLES.get(table)
    if not studies or schema is None or not {"study", "image_id"} <= set(schema.names):
        return select
    listed = ", ".join(map(literal, sorted(studies)))
    return f"SELECT *, CASE WHEN study IN ({listed}) THEN image_id END AS text_id FROM ({select})"


def human_judgements_view(files: Sequence[str]) -> str:
    """The SELECT of what people judged, over their files of JSON lines: the last that each said of an item.

    The columns of JUDGEMENTS, of which a person gives no words and no chance; then who, when, and of which answers.
    """
    if not files:
        return empty_sql(HUMAN_JUDGEMENTS)
    given = ("study", "image_id", "token_index", "visual_layer", "lens", "verdict", "person", "made", "answers")
    kinds = ", ".join(f"{name}: '{SQL_TYPES[HUMAN_JUDGEMENTS.field(name).type]}'" for name in given)
    columns = ", ".join(identifier(name) if name in given else _NOT_GIVEN[name] for name in HUMAN_JUDGEMENTS.names)
    lines = (
        f"SELECT *, row_number() OVER () AS line FROM read_json([{', '.join(map(literal, files))}], "
        f"format = 'newline_delimited', ignore_errors = true, columns = {{{kinds}}})"
    )
    last = (
        f"SELECT * FROM ({lines}) WHERE verdict IS NOT NULL "
        "QUALIFY row_number() OVER (PARTITION BY person, study, image_id, token_index, visual_layer, lens "
        "ORDER BY line DESC) = 1"
    )
    return f"SELECT {columns} FROM ({last}) WHERE verdict <> 'skipped'"


_NOT_GIVEN = {
    "judge": "'human' AS judge",
    "words": "NULL::VARCHAR[] AS words",
    "patch_group": "NULL::VARCHAR AS patch_group",
    "chance_verdict": "NULL::VARCHAR AS chance_verdict",
    "chance_counts": "NULL::INTEGER[] AS chance_counts",
    "first_verdict": "NULL::VARCHAR AS first_verdict",
    "first_chance_counts": "NULL::INTEGER[] AS first_chance_counts",
}
