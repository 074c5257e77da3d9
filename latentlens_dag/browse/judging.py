"""The data of the page Judge: patches to draw from, the answers to judge, and the ratings of all judges.

A judgement by a person (`dataset/human_judgements.py`) counts only as long as its answers are still the study's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from latentlens_dag.browse.browser_data import BrowserData
from latentlens_dag.dataset.human_judgements import HumanJudgement, Item, judgement_table, latest_judgements
from latentlens_dag.models.families.token_map import ROUNDING
from latentlens_dag.study.agreement import RATINGS

if TYPE_CHECKING:
    import polars as pl

_ITEM = list(Item._fields)
_PATCHES = f"""
SELECT image_id, list(token_index ORDER BY token_index)
FROM visual_tokens LEFT JOIN images USING (image_id)
WHERE study = $study AND x0 IS NOT NULL AND coalesce(
    x1 > {ROUNDING} AND y1 > {ROUNDING} AND x0 < width - {ROUNDING} AND y0 < height - {ROUNDING}, true)
GROUP BY image_id"""
_BOX = "SELECT x0, y0, x1, y1 FROM visual_tokens WHERE study = $study AND image_id = $image AND token_index = $token"
_WANTED = """
WITH wanted AS (
    SELECT
        unnest($image_id) AS image_id,
        CAST(unnest($token_index) AS INTEGER) AS token_index,
        CAST(unnest($visual_layer) AS INTEGER) AS visual_layer,
        unnest($lens) AS lens
)"""
_ANSWERS = f"""{_WANTED}
SELECT
    image_id,
    token_index,
    visual_layer,
    lens,
    list(coalesce(nullif(word, ''), token_str, '') ORDER BY rank) AS answers
FROM neighbors
JOIN wanted USING (image_id, token_index, visual_layer, lens)
WHERE study = $study
GROUP BY ALL"""
_VERDICTS = f"""{_WANTED}
SELECT image_id, token_index, visual_layer, lens, judge, verdict
FROM judgements
JOIN wanted USING (image_id, token_index, visual_layer, lens)
WHERE study = $study"""


def patches_by_image(data: BrowserData, study: str) -> dict[str, list[int]]:
    """The tokens of every image of a study that have a box which is not padding (as `outside_image` decides)."""
    return dict(data.dataset(study).collect(_PATCHES, study=study).iter_rows())


def item_box(data: BrowserData, study: str, item: Item) -> tuple[float, float, float, float]:
    """The box of an item's patch: x0, y0, x1, y1 in pixels of the original."""
    rows = data.dataset(study).collect(_BOX, study=study, image=item.image_id, token=item.token_index)
    x0, y0, x1, y1 = rows.row(0)
    return x0, y0, x1, y1


def item_answers(data: BrowserData, study: str, item: Item) -> list[dict[str, Any]]:
    """The answers to judge, nearest first: rows of `token.sql`, each with a word."""
    parameters = {"image_id": item.image_id, "token_index": item.token_index, "layer": item.visual_layer}
    rows = data.collect(study, "token", **parameters, lens=item.lens).to_dicts()
    return list({row["rank"]: {**row, "word": row["word"] or row["token_str"] or ""} for row in rows}.values())


class Ratings(NamedTuple):
    """The verdicts of all judges on the items that people judged."""

    rows: pl.DataFrame
    """RATINGS, a row per judge and item."""
    outdated: int
    """Judgements by people that are left out, since their items have other answers now, or none."""


def current_ratings(data: BrowserData, study: str, judgements: Sequence[HumanJudgement]) -> Ratings:
    """The latest judgements of people, and those of the study's own judges on the same items."""
    import polars as pl

    people = judgement_table(latest_judgements(judgements))
    if people.is_empty():
        return Ratings(pl.DataFrame(schema=dict.fromkeys(RATINGS, pl.String)), 0)
    dataset, items = data.dataset(study), people.select(_ITEM).unique()
    columns = {name: items[name].to_list() for name in _ITEM}
    now = dataset.collect(_ANSWERS, study=study, **columns)
    current = people.join(now, on=[*_ITEM, "answers"])
    by_people = current.rename({"person": "rater"}).select(RATINGS)
    machine = dataset.collect(_VERDICTS, study=study, **columns).join(current.select(_ITEM).unique(), on=_ITEM)
    by_machine = machine.with_columns(pl.format("{} (machine)", "judge").alias("rater")).select(RATINGS)
    return Ratings(pl.concat([by_people, by_machine]), len(people) - len(current))
