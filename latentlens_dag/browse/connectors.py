"""What the page Connectors shows: what was trained, the losses of its steps, and what studies make of them."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from latentlens_dag.dataset.dataset import Dataset

POINTS = 300
"""The most points of a curve: steps are averaged where there are more."""
_LOSSES = """
WITH wide AS (
    SELECT connector, CAST(greatest(1, ceil(max(step) / $points)) AS BIGINT) AS width FROM losses GROUP BY connector
)
SELECT connector, max(step) AS step, avg(loss) AS loss, min(loss) AS low, max(loss) AS high, count(*) AS steps
FROM losses
JOIN wide USING (connector)
WHERE list_contains($connectors, connector)
GROUP BY connector, (step - 1) // width
ORDER BY connector, step
"""
_SHARES = """
FROM interpretability
JOIN study_connectors USING (study)
WHERE list_contains($connectors, connector)
    AND lens = $lens
    AND visual_layer = $layer
    AND patch_group = $group
    AND measure = $measure
QUALIFY k = max(k) OVER (PARTITION BY study)
ORDER BY connector, step
"""
_CHOICES = """
SELECT DISTINCT lens, visual_layer
FROM interpretability
JOIN study_connectors USING (study)
WHERE list_contains($connectors, connector)
ORDER BY ALL
"""


def connectors(dataset: Dataset) -> pl.DataFrame:
    """The table `connectors`; without columns where the source has none."""
    if "connectors" not in dataset.tables:
        return pl.DataFrame()
    return dataset.collect("FROM connectors ORDER BY connector")


def loss_curves(dataset: Dataset, names: Sequence[str], points: int = POINTS) -> pl.DataFrame:
    """Of each connector at most so many points: `step`, the last of some, and `loss`, `low`, `high` over them."""
    return dataset.collect(_LOSSES, connectors=list(names), points=points)


def measured_layers(dataset: Dataset, names: Sequence[str]) -> pl.DataFrame:
    """The lenses and visual layers of judged studies of the connectors' models."""
    return dataset.collect(_CHOICES, connectors=list(names))


def shares_by_step(
    dataset: Dataset, names: Sequence[str], lens: str, layer: int, group: str, measure: str
) -> pl.DataFrame:
    """The rows of `interpretability` of studies of the connectors' models, with `connector` and `step`."""
    return dataset.collect(_SHARES, connectors=list(names), lens=lens, layer=layer, group=group, measure=measure)
