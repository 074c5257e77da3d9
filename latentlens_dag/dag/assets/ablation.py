"""The assets of a study that reads parts of its index: LatentLens's answers from each, and what they are worth."""

from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq

from latentlens_dag.dag import keys
from latentlens_dag.dag.assets.checks import StepResults
from latentlens_dag.dag.assets.common import layer_specs, parquet_asset
from latentlens_dag.dag.assets.reporting import ProgressLog
from latentlens_dag.dag.recording import result
from latentlens_dag.dag.resources import WarehouseResource
from latentlens_dag.dag.specs import StudySpec
from latentlens_dag.dag.versions import version_fields
from latentlens_dag.index.contextual_index import ContextualIndex
from latentlens_dag.schema import CORPUS_ABLATION, NEIGHBORS
from latentlens_dag.storage.hashing import hash_file, hash_values
from latentlens_dag.storage.parquet import write_parquet
from latentlens_dag.storage.warehouse import Warehouse
from latentlens_dag.study.lenses.base import LensInputs
from latentlens_dag.study.lenses.latentlens import LatentLens

# Algorithm: raise it when the same input would give other bytes.
_ABLATION = 1
_NEIGHBORS = "ablation_neighbors"
WHOLE = 1.0
"""The fraction whose answers are those of the study itself."""


def ablation_assets(study: StudySpec, **algorithms: int) -> list[dg.AssetsDefinition]:
    """The table, and the answers from parts of the index; `algorithms` are those of judging and of summing up."""
    searched = [_ablation_neighbors(study)] if _parts(study) else []
    return [*searched, _corpus_ablation(study, algorithms)]


def _parts(study: StudySpec) -> list[float]:
    """The fractions that are searched."""
    return [fraction for fraction in study.corpus_ablation if fraction < WHOLE]


def _ablation_neighbors(study: StudySpec) -> dg.AssetsDefinition:
    key_of, visual_key_of = study.layer_keys(_NEIGHBORS), study.layer_keys("visual")
    lens = LatentLens(study.name, study.top_k, study.unique)
    tables = [keys.table(study.index.name, layer) for layer in study.index.layers]
    composed = {"words": "composed"} if study.unique == "word" else {}
    of_all = {fraction: fraction * study.index.fraction for fraction in _parts(study)}
    settings = {"top_k": study.top_k, "unique": study.unique, "fractions": [*of_all.values()], **composed}
    version = version_fields(lens.algorithm, **settings)
    deps = {layer: [visual_key_of[layer], *tables] for layer in key_of}
    text = "LatentLens's answers for each visual token at layer {layer} from parts of the index; a file for each part."

    @dg.multi_asset(
        name=f"{study.name}_{_NEIGHBORS}",
        specs=layer_specs(key_of, deps, version, {"torch", "parquet"}, text),
        partitions_def=keys.partitions(study.batches),
        can_subset=True,
    )
    def neighbors(context: dg.AssetExecutionContext, warehouse: WarehouseResource) -> StepResults:
        from latentlens_dag.index.state_tables import read_states

        batch, paths = int(context.partition_key), warehouse.paths
        layers = [layer for layer, key in key_of.items() if key in context.selected_asset_keys]
        states = {layer: read_states(paths.visual(study.name, layer, batch)) for layer in layers}
        inputs = LensInputs(
            lambda: ContextualIndex.open(paths.index(study.index.name).root),
            _no_vocabulary,
            ProgressLog(context.log.info, "rows"),
            study.index.layers,
        )
        rows = dict.fromkeys(layers, 0)
        fraction_of = {of_corpus: fraction for fraction, of_corpus in of_all.items()}
        for of_corpus, (_, layer, table) in lens.neighbors_in_parts(states, inputs, [*of_all.values()]):
            out = paths.ablation_neighbors(study.name, fraction_of[of_corpus], layer, batch)
            write_parquet(table, out, NEIGHBORS)
            rows[layer] += len(table)
        for layer in layers:
            files = [paths.ablation_neighbors(study.name, fraction, layer, batch) for fraction in of_all]
            facts = {"dagster/row_count": rows[layer], "size_bytes": sum(file.stat().st_size for file in files)}
            yield result(key_of[layer], hash_values(map(hash_file, files)), facts, files)

    return neighbors


def _no_vocabulary(needs: object) -> NoReturn:
    raise AssertionError("LatentLens has no vocabulary.")


def _corpus_ablation(study: StudySpec, algorithms: dict[str, int]) -> dg.AssetsDefinition:
    parts, name = _parts(study), study.name

    def write(paths: Warehouse, _: int) -> list[Path]:
        from latentlens_dag.study.corpus_ablation import corpus_ablation, index_parts

        files = [paths.index(study.index.name).occurrences(shard) for shard in range(study.index.corpus.shards)]
        sizes = index_parts(files, study.corpus_ablation, study.index.fraction)
        judgements = {size: _judged(study, paths, size.fraction) for size in sizes}
        table = corpus_ablation(judgements, study.top_k, pq.read_table(paths.summary(name, "sinks")))
        write_parquet(table, out := paths.summary(name, "corpus_ablation"), CORPUS_ABLATION)
        return [out]

    deps = [keys.index(study.index.name, "occurrences"), keys.study(name, "sinks")]
    if parts:
        deps += [*study.layer_keys(_NEIGHBORS).values()]
        deps += [keys.study(name, "patch_truth"), keys.study(name, "chance_patches")]
    deps += [*study.layer_keys("judgements").values()] if WHOLE in study.corpus_ablation else []
    fields = {"fractions": [*study.corpus_ablation], "top_k": study.top_k, "batches": study.batches}
    version = version_fields(_ABLATION, **fields, **algorithms)
    text = "Shares of visual tokens that LatentLens makes interpretable from parts of its index, by their size."
    key, kinds = keys.study(name, "corpus_ablation"), frozenset({"polars", "parquet"})
    return parquet_asset(key, deps, version, text, write, kinds=kinds)


def _judged(study: StudySpec, paths: Warehouse, fraction: float) -> Iterator[pa.Table]:
    """The judgements of LatentLens's answers from a part of the index; those from all of it are stored."""
    from latentlens_dag.study.corpus_ablation import of_latentlens
    from latentlens_dag.study.regions_judge import Truth, judge_files

    for batch in range(study.batches):
        if fraction == WHOLE:
            yield from (of_latentlens(paths.judgements(study.name, layer, batch)) for layer in study.visual_layers)
        else:
            truth = Truth.of(paths.patch_truth(study.name, batch), paths.chance_patches(study.name, batch))
            layers = study.visual_layers
            yield from judge_files((paths.ablation_neighbors(study.name, fraction, v, batch) for v in layers), truth)
