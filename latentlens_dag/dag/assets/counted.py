"""What summaries of a study's tokens need to leave out those that show nothing of their image.

Homes of before counted padding. Where a study has none, what they hold is what would be made now, so it is kept.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg
import pyarrow.parquet as pq

from latentlens_dag.dag import keys
from latentlens_dag.dag.recording import files_as_before
from latentlens_dag.dag.specs import StudySpec
from latentlens_dag.storage.warehouse import Warehouse

if TYPE_CHECKING:
    import polars as pl

_SETTING = "padding"


def counted_settings(study: StudySpec) -> dict[str, str]:
    """The setting of a summary's version; texts have no padding, so that theirs stay as they are."""
    return {} if study.of_texts else {_SETTING: "left out"}


def counted_keys(study: StudySpec) -> list[dg.AssetKey]:
    """The assets that say which tokens count."""
    return [] if study.of_texts else [keys.study(study.name, "visual_tokens"), study.input_key]


def stored_blank_tokens(study: StudySpec, paths: Warehouse) -> "pl.DataFrame":
    """The tokens that do not count, as `blank_tokens`."""
    from latentlens_dag.study.counted_tokens import PLACES, SIZES, blank_tokens

    batches = range(0 if study.of_texts else study.batches)
    tokens = (pq.read_table(paths.visual_tokens(study.name, batch), columns=PLACES) for batch in batches)
    images = (pq.read_table(paths.pictures(study.images.name, batch), columns=SIZES) for batch in batches)
    return blank_tokens(tokens, images)


def files_without_padding(study: StudySpec, blank: "pl.DataFrame") -> list[Path]:
    """The files of the summary that is made now, if it was made when padding counted and the study has none."""
    return [] if study.of_texts or len(blank) else files_as_before(_SETTING, counted_keys(study))
