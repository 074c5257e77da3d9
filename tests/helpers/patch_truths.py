"""What the patches of some tables show: the steps of a study before its judge, in one call."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.parquet as pq

from latentlens_dag.schema import PATCH_TRUTH
from latentlens_dag.storage.parquet import write_parquet
from latentlens_dag.study.chance_patches import write_chance_patches
from latentlens_dag.study.patch_truth import patch_truth
from latentlens_dag.study.regions_judge import Truth

Inputs = tuple[pa.Table, pa.Table, pa.Table]
"""REGIONS, VISUAL_TOKENS, IMAGES of a batch."""


def truth_of(regions: pa.Table, visual_tokens: pa.Table, images: pa.Table) -> Truth:
    """The truth of a study with one batch."""
    return truths_of([(regions, visual_tokens, images)])[0]


def truths_of(batches: Sequence[Inputs]) -> list[Truth]:
    """The truth of each batch of a study."""
    with TemporaryDirectory() as folder:
        return [Truth.of(*files) for files in _truth_files(batches, Path(folder))]


def truth_tables(batches: Sequence[Inputs]) -> list[tuple[pa.Table, pa.Table]]:
    """PATCH_TRUTH and CHANCE_PATCHES of each batch of a study."""
    with TemporaryDirectory() as folder:
        files = _truth_files(batches, Path(folder))
        return [(pq.read_table(truth), pq.read_table(chance)) for truth, chance in files]


def _truth_files(batches: Sequence[Inputs], folder: Path) -> list[tuple[Path, Path]]:
    truths, chances = ([folder / f"{name}_{batch}" for batch in range(len(batches))] for name in ("truth", "chance"))
    write_truths(batches, truths, chances)
    return list(zip(truths, chances, strict=True))


def write_truths(batches: Sequence[Inputs], truths: Sequence[Path], chances: Sequence[Path]) -> None:
    """Write PATCH_TRUTH and CHANCE_PATCHES of each batch."""
    for tables, file in zip(batches, truths, strict=True):
        write_parquet(pa.concat_tables([PATCH_TRUTH.empty_table(), *patch_truth(*tables)]), file, PATCH_TRUTH)
    write_chance_patches(truths, chances)
