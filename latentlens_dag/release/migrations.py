"""Migrations of a release's tables: the columns of each older schema version, and the SQL that makes the next one's.

What an older version did not write, and what does not follow from what it wrote, is null; `note` says so to people.
Note: the columns of a version stand here in full, since those of today change.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import pyarrow as pa

from latentlens_dag.sql.quoting import literal

_MOST_ANSWERS = 10_000
"""A manifest is a stranger's: a top_k above it counts as unknown."""


class Migration(NamedTuple):
    """From one schema version to the next."""

    before: Mapping[str, pa.Schema]
    """The tables whose columns differ, as they were."""
    selects: Mapping[str, str]
    """Per table, a SELECT over `{older}` with the columns of the next version; `{top_k}` is that of the row's study."""
    note: str = ""
    """What is null, in a sentence."""


_FIRST_INTERPRETABILITY = """
SELECT
    study, lens, if(lens = 'latentlens', 'shared', 'all') AS candidates, visual_layer, judge, patch_group,
    {top_k} AS k, one.measure, tokens, NULL AS images, NULL AS effective_tokens, one.share, NULL AS low, NULL AS high,
    one.chance, NULL AS chance_low, NULL AS chance_high, one.excess, NULL AS excess_low, NULL AS excess_high
FROM (
    SELECT *, unnest([
        {'measure': 'interpretable', 'share': interpretable, 'chance': chance, 'excess': excess},
        {'measure': 'concrete', 'share': concrete, 'chance': concrete_chance,
         'excess': (concrete - concrete_chance) / nullif(1 - concrete_chance, 0)},
        {'measure': 'abstract', 'share': abstract, 'chance': NULL, 'excess': NULL},
        {'measure': 'global', 'share': "global", 'chance': NULL, 'excess': NULL}
    ]) AS one
    FROM {older}
)"""
"""The intervals of version 1 are left out: they were of a bootstrap that covers far too little (docs/intervals.md)."""
_FIRST_JUDGEMENTS = """
SELECT
    *,
    if(chance_verdict IS NULL, NULL, [
        CAST(chance_verdict = 'concrete' AS INTEGER), CAST(chance_verdict = 'abstract' AS INTEGER),
        CAST(chance_verdict = 'global' AS INTEGER), CAST(chance_verdict = 'none' AS INTEGER)
    ]) AS chance_counts,
    NULL AS first_verdict,
    NULL AS first_chance_counts
FROM {older}"""

_FIRST_DIVERSITY = """
SELECT
    study, lens, if(lens = 'latentlens', 'shared', 'all') AS candidates, visual_layer, tokens, NULL AS images,
    distinct_words, NULL AS low, NULL AS high
FROM {older}"""

MIGRATIONS: dict[int, Migration] = {
    1: Migration(
        before={
            "interpretability": pa.schema(
                [
                    ("study", pa.string()),
                    ("lens", pa.string()),
                    ("visual_layer", pa.int32()),
                    ("judge", pa.string()),
                    ("patch_group", pa.string()),
                    ("tokens", pa.int32()),
                    ("concrete", pa.float64()),
                    ("abstract", pa.float64()),
                    ("global", pa.float64()),
                    ("interpretable", pa.float64()),
                    ("low", pa.float64()),
                    ("high", pa.float64()),
                    ("chance", pa.float64()),
                    ("excess", pa.float64()),
                    ("concrete_chance", pa.float64()),
                    ("concrete_low", pa.float64()),
                    ("concrete_high", pa.float64()),
                ]
            ),
            "judgements": pa.schema(
                [
                    ("study", pa.string()),
                    ("image_id", pa.string()),
                    ("token_index", pa.int32()),
                    ("visual_layer", pa.int32()),
                    ("lens", pa.string()),
                    ("judge", pa.string()),
                    ("verdict", pa.string()),
                    ("words", pa.list_(pa.string())),
                    ("patch_group", pa.string()),
                    ("chance_verdict", pa.string()),
                ]
            ),
            "diversity": pa.schema(
                [
                    ("study", pa.string()),
                    ("lens", pa.string()),
                    ("visual_layer", pa.int32()),
                    ("tokens", pa.int64()),
                    ("distinct_words", pa.float64()),
                ]
            ),
        },
        selects={
            "interpretability": _FIRST_INTERPRETABILITY,
            "judgements": _FIRST_JUDGEMENTS,
            "diversity": _FIRST_DIVERSITY,
        },
        note="Its verdicts are on all answers, against one chance patch each: what is said of the nearest answer "
        "alone, the numbers of images and of effective tokens, and the chance of `abstract` and `global` are null, and "
        "so are intervals, whose method covered too little. Padding was judged as background.",
    )
}
"""By the version that they start from: one for every version before `manifest.SCHEMA_VERSION`."""


def steps_from(version: int) -> list[int]:
    """The migrations that a release of a schema version needs, in their order."""
    return sorted(step for step in MIGRATIONS if step >= version)


def migrated(table: str, rows: str, version: int, studies: Mapping[str, Mapping[str, Any]]) -> str:
    """The SELECT of a table's rows with the columns of today.

    Args:
        table: its name.
        rows: a SELECT with the columns of `version`.
        version: the schema version of the release.
        studies: provenance of each study, as the manifest has it.
    """
    for step in steps_from(version):
        select = MIGRATIONS[step].selects.get(table, "{older}")
        rows = select.replace("{top_k}", _top_k(studies)).replace("{older}", f"({rows})")
    return rows


def migration_note(version: int, maker: str) -> str | None:
    """What people should know of a release of a schema version, made by `maker`; None for one of today's."""
    notes = [MIGRATIONS[step].note for step in steps_from(version)]
    return " ".join([f"This release was made by latentlens-dag {maker}.", *notes]) if notes else None


def _top_k(studies: Mapping[str, Mapping[str, Any]]) -> str:
    """An SQL expression: how many answers each token of the row's study has; null where that is not known."""
    known = {name: facts.get("top_k") for name, facts in studies.items()}
    cases = [
        f"WHEN {literal(name)} THEN {top_k}"
        for name, top_k in known.items()
        if type(top_k) is int and 1 <= top_k <= _MOST_ANSWERS
    ]
    return f"CASE study {' '.join(cases)} END" if cases else "NULL"
