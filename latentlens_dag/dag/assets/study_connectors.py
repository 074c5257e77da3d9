"""The asset that says of which connector, after how many steps, a study's model is; only of studies of one."""

from pathlib import Path

import dagster as dg
import pyarrow as pa

from latentlens_dag.dag import keys
from latentlens_dag.dag.assets.common import parquet_asset
from latentlens_dag.dag.specs import CheckpointSpec
from latentlens_dag.dag.versions import version_fields
from latentlens_dag.schema import STUDY_CONNECTORS
from latentlens_dag.storage.parquet import write_parquet
from latentlens_dag.storage.warehouse import Warehouse

_CONNECTORS = 1  # algorithm


def study_connectors(study: str, checkpoint: CheckpointSpec) -> dg.AssetsDefinition:
    """The table of a study whose model is a checkpoint: one row."""

    def write(paths: Warehouse, _: int) -> list[Path]:
        row = {"study": study, "connector": checkpoint.connector, "step": checkpoint.step}
        table = pa.Table.from_pylist([row], schema=STUDY_CONNECTORS)
        write_parquet(table, out := paths.summary(study, "study_connectors"), STUDY_CONNECTORS)
        return [out]

    version = version_fields(_CONNECTORS, connector=checkpoint.connector, step=checkpoint.step)
    text = "The connector of the study's model, and after how many steps of its training it is."
    return parquet_asset(keys.study(study, "study_connectors"), [checkpoint.key], version, text, write)
