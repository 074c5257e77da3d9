"""A home that is as wide as studies get: long names, many layers, and all lenses, also with shared candidates.

Run as a script to look at it: `python -m tests.dashboards.wide_home FOLDER`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import duckdb
import polars as pl

from latentlens_dag.dataset.study_catalog import write_catalog
from latentlens_dag.schema import LENSES
from latentlens_dag.storage.warehouse import Warehouse
from latentlens_dag.study.differences import lens_differences
from tests.helpers.small_dataset import ANIMALS, LAYERS, TOP_K, write_study, write_warehouse

WIDE = "qwen2_5_vl_72b_instruct_of_the_second_of_march_on_validation_images"
MANY = tuple(range(16))
_LENSES = ("neighbors", "judgements", "interpretability", "diversity")
_LAYERS = (*_LENSES, "corpus_ablation", "layer_alignment")


def add_wide_study(house: Warehouse) -> None:
    """Add the study: its catalog has the rows of a small one at every layer, for every lens."""
    write_study(house, WIDE, (ANIMALS[:2], ANIMALS[2:]))
    write_catalog(house, WIDE, house.catalog(WIDE))
    with duckdb.connect(house.catalog(WIDE)) as catalog:
        for table in _LENSES:
            for lens in LENSES.values():
                if lens.declared:
                    rows = f"SELECT * REPLACE ('{lens.name}' AS lens) FROM {table} WHERE lens = '{lens.declared}'"
                    catalog.execute(f"INSERT INTO {table} {rows}")
        for layer in MANY:
            for table, column, like in [
                *((table, "visual_layer", LAYERS[-1]) for table in _LAYERS),
                ("state_statistics", "layer", LAYERS[-1]),
                ("layer_alignment", "contextual_layer", 4),
            ]:
                there = f"SELECT 1 FROM {table} WHERE {column} = {layer}"
                rows = f"SELECT * REPLACE ({layer} AS {column}) FROM {table} WHERE {column} = {like}"
                catalog.execute(f"INSERT INTO {table} {rows} AND NOT EXISTS ({there})")
        judged = pl.DataFrame(catalog.sql("FROM judgements").to_arrow_table())
        parts = judged.partition_by("visual_layer", as_dict=True)
        found = lens_differences(WIDE, {layer: [part.lazy()] for (layer,), part in parts.items()}, TOP_K)
        catalog.register("found", found)
        catalog.execute("CREATE OR REPLACE TABLE lens_differences AS FROM found")
        catalog.execute("UPDATE images SET file_name = repeat(file_name, 20)")


if __name__ == "__main__":
    add_wide_study(write_warehouse(Path(sys.argv[1]) / "warehouse"))
