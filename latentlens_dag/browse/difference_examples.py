"""The patches behind a difference of two shares: those that one side has and the other has not.

A difference of LENS_DIFFERENCES is the number of the one minus that of the other, over all patches that both sides have
(`study/differences.py`). Sinks at either layer, and padding, are in neither.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import polars as pl

from latentlens_dag.browse.browser_data import BrowserData
from latentlens_dag.inputs.regions import BACKGROUND, OBJECT
from latentlens_dag.study.interpretability import ALL, INTERPRETABLE


class LensAtLayer(NamedTuple):
    """One of the two sides."""

    lens: str
    layer: int


class Counted(NamedTuple):
    """Which patches count as hits."""

    measure: str
    """One of `interpretability.MEASURES`."""
    of_first: bool
    """Whether of the nearest answer alone, or of all answers."""
    patch_group: str
    """object, background, or all of both."""


class OneSided(NamedTuple):
    """The patches that one side has and the other has not."""

    patches: int
    examples: pl.DataFrame
    """image_id, token_index, x0, y0, x1, y1, and the nearest answers of both: word, other_word (null where none was
    kept). One of each image in turn, in an order that is chance and always the same."""


_SIDE = """
SELECT judge, image_id, token_index, patch_group, {column} {hit} AS hit
FROM judgements
WHERE study = $study AND lens = {lens} AND visual_layer = CAST({layer} AS INTEGER) {without_sinks}"""
_WITHOUT_SINKS = """AND (image_id, token_index) NOT IN (
    SELECT (image_id, token_index) FROM sinks WHERE study = $study AND visual_layer = CAST({layer} AS INTEGER))"""
_NEAREST = """
SELECT image_id, token_index, coalesce(word, token_str) AS {name}
FROM neighbors
WHERE study = $study AND rank = 1 AND lens = {lens} AND visual_layer = CAST({layer} AS INTEGER)"""
_ONE_SIDED = """
WITH here AS ({here}), there AS ({there}), only_here AS (
    SELECT DISTINCT image_id, token_index
    FROM here
    JOIN there USING (judge, image_id, token_index)
    WHERE here.hit AND NOT there.hit AND list_contains($groups, here.patch_group)
), drawn AS (
    SELECT
        *,
        md5(image_id || ' ' || token_index) AS chance,
        row_number() OVER (PARTITION BY image_id ORDER BY chance) AS turn,
        count(*) OVER () AS patches
    FROM only_here
), chosen AS (FROM drawn ORDER BY turn, chance LIMIT CAST($most AS INTEGER))
SELECT patches, image_id, token_index, word, other_word, x0, y0, x1, y1
FROM chosen
LEFT JOIN ({nearest}) USING (image_id, token_index)
LEFT JOIN ({other_nearest}) USING (image_id, token_index)
LEFT JOIN (FROM visual_tokens WHERE study = $study) USING (image_id, token_index)
ORDER BY turn, chance"""


def one_sided(
    data: BrowserData, study: str, one: LensAtLayer, other: LensAtLayer, counted: Counted, most: int
) -> OneSided:
    """The patches that `one` has and `other` has not.

    Args:
        data: holds the study's judgements.
        study: its name.
        one: the side that has them.
        other: the side that has not.
        counted: which patches count.
        most: the number of examples.
    """
    dataset = data.dataset(study)
    verdict = "first_verdict" if counted.of_first else "verdict"
    hit = "<> 'none'" if counted.measure == INTERPRETABLE else "= $measure"
    sinks = _WITHOUT_SINKS if "sinks" in dataset.tables else ""

    def side(number: int) -> str:
        names = {"lens": f"$lens{number}", "layer": f"$layer{number}"}
        return _SIDE.format(column=verdict, hit=hit, without_sinks=sinks.format(**names), **names)

    nearest = [
        _NEAREST.format(name=name, lens=f"$lens{number}", layer=f"$layer{number}")
        for number, name in enumerate(("word", "other_word"))
    ]
    sql = _ONE_SIDED.format(here=side(0), there=side(1), nearest=nearest[0], other_nearest=nearest[1])
    params: dict[str, Any] = {"measure": counted.measure} if "$measure" in sql else {}
    for number, (lens, layer) in enumerate((one, other)):
        params |= {f"lens{number}": lens, f"layer{number}": layer}
    groups = [OBJECT, BACKGROUND] if counted.patch_group == ALL else [counted.patch_group]
    found = dataset.collect(sql, study=study, **params, groups=groups, most=most)
    return OneSided(0 if found.is_empty() else int(found["patches"][0]), found.drop("patches"))
