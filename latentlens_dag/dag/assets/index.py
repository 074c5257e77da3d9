"""The assets of an index: candidates, selection, occurrences, contextual states, layer tables."""

from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg
import pyarrow.parquet as pq

from latentlens_dag.dag import keys
from latentlens_dag.dag.assets.checks import StepResults, check_result, fail_on_errors
from latentlens_dag.dag.assets.common import check_dtype_of_step, dtype_setting, layer_specs, parquet_asset, step_dtype
from latentlens_dag.dag.assets.reporting import ProgressLog, column_schema, parquet_result, tell_left_out
from latentlens_dag.dag.assets.sources import model_source
from latentlens_dag.dag.recording import result, store_of
from latentlens_dag.dag.resources import ModelResource, WarehouseResource
from latentlens_dag.dag.run_tags import FORCED
from latentlens_dag.dag.specs import IndexSpec
from latentlens_dag.dag.versions import content_version, version_fields
from latentlens_dag.index import occurrences as core
from latentlens_dag.inputs.texts import read_order
from latentlens_dag.schema import OCCURRENCES
from latentlens_dag.storage.files import scratch_folder
from latentlens_dag.storage.hashing import hash_values
from latentlens_dag.storage.package_versions import provenance_json
from latentlens_dag.storage.parquet import write_parquet
from latentlens_dag.storage.records import FileFacts
from latentlens_dag.storage.shapes import IndexShape
from latentlens_dag.storage.warehouse import Warehouse

if TYPE_CHECKING:
    from latentlens_dag.models.language_model import LanguageModel

_OLD_VERSIONS = timedelta(days=1)  # of layer tables, which a reader may still have open
_CANDIDATES, _SELECTION, _OCCURRENCES, _CONTEXTUAL, _TABLE = 3, 1, 1, 1, 2  # algorithms
_POLARS = frozenset({"polars", "parquet"})
_CONTEXTUAL_TEXT = "The occurrences' states entering block {layer}; one forward pass for all layers."
_TABLE_TEXT = "The layer table of contextual layer {layer}: one row per occurrence, one atomic version."


def index_definitions(index: IndexSpec) -> dg.Definitions:
    """candidates[shard] -> selection -> occurrences[shard] -> contextual/L..[shard] -> table/L.. ."""
    source = model_source(keys.index(index.name, "language_model"), index.model)
    steps = [_candidates(index), _selection(index), _occurrences(index), _contextual(index), _tables(index)]
    return dg.Definitions(assets=[source, *steps])


def _candidates(index: IndexSpec) -> dg.AssetsDefinition:
    fields = {name: getattr(index, name) for name in ("contexts_per_token", "sampling", "fraction", "min_position")}
    fields |= _unless_prefix(index)
    order = [keys.corpus(index.corpus.name, "order")] if index.sampling == "first" else []

    @dg.asset(
        key=keys.index(index.name, "candidates"),
        deps=[keys.corpus(index.corpus.name, "shards"), keys.index(index.name, "language_model"), *order],
        partitions_def=keys.partitions(index.corpus.shards),
        group_name=f"index/{index.name}",
        kinds={"transformers", "parquet"},
        **version_fields(_CANDIDATES, **fields),
        description="The candidates of a shard: its tokens' distinct prefixes, of each token no more than may be kept.",
    )
    def candidates(context: dg.AssetExecutionContext, warehouse: WarehouseResource) -> dg.MaterializeResult:
        from latentlens_dag.models.loading import load_tokenizer, position_limit

        shard, positions = int(context.partition_key), position_limit(index.model)
        long: list[core.LongSentence] = []
        candidates = core.candidates(
            load_tokenizer(index.model),
            core.read_sentences(warehouse.paths.shard(index.corpus.name, shard)),
            index.name,
            index.contexts_per_token,
            min_position=index.min_position,
            fraction=index.fraction,
            order=read_order(warehouse.paths.order(index.corpus.name)) if order else None,
            dedup=index.dedup,
            positions=positions,
            report_long=long.append,
        )
        left_out = core.long_sentences_warning(long, index.model.name, positions, index.dedup) if long else ""
        tell_left_out(context, left_out)
        out = warehouse.paths.candidates(index.name, shard)
        write_parquet(candidates, out)
        return parquet_result(out, long_sentences=len(long))

    return candidates


def _selection(index: IndexSpec) -> dg.AssetsDefinition:
    def write(paths: Warehouse, _: int) -> list[Path]:
        files = [paths.candidates(index.name, shard) for shard in range(index.corpus.shards)]
        core.write_selection(files, index.contexts_per_token, out := paths.selection(index.name))
        return [out]

    return parquet_asset(
        keys.index(index.name, "selection"),
        [keys.index(index.name, "candidates")],
        version_fields(_SELECTION, contexts_per_token=index.contexts_per_token, shards=index.corpus.shards),
        "The occurrences that the index keeps, over all shards.",
        write,
        kinds=_POLARS,
    )


def _occurrences(index: IndexSpec) -> dg.AssetsDefinition:
    corpus = index.corpus
    shape = IndexShape(parts=corpus.shards, layers=index.layers, language_model=index.model.name, corpus=corpus.name)

    def write(paths: Warehouse, shard: int) -> list[Path]:
        shape.write(paths.shape("index", index.name))
        rows = core.selected_rows(paths.candidates(index.name, shard), paths.selection(index.name))
        out = paths.occurrences(index.name, shard)
        write_parquet(rows, out, OCCURRENCES)
        return [out, paths.shape("index", index.name)]

    return parquet_asset(
        keys.index(index.name, "occurrences"),
        [keys.index(index.name, "candidates"), keys.index(index.name, "selection")],
        version_fields(_OCCURRENCES, shape=shape.to_json()),
        "The shard's occurrences that the selection kept, in order of key.",
        write,
        index.corpus.shards,
        _POLARS,
    )


def _contextual(index: IndexSpec) -> dg.AssetsDefinition:
    key_of = {layer: keys.contextual(index.name, layer) for layer in index.layers}
    # The sentences' texts are read too, but their ids, which the occurrences hold, are the hashes of the texts.
    deps = [keys.index(index.name, "occurrences"), keys.index(index.name, "language_model")]
    version = version_fields(_CONTEXTUAL, **_unless_prefix(index), **dtype_setting(index.dtype))

    @dg.multi_asset(
        name=f"{index.name}_contextual",
        specs=layer_specs(key_of, dict.fromkeys(key_of, deps), version, {"torch", "lance"}, _CONTEXTUAL_TEXT),
        check_specs=[dg.AssetCheckSpec("finite_unit_vectors", asset=key, blocking=True) for key in key_of.values()],
        partitions_def=keys.partitions(index.corpus.shards),
        can_subset=True,
    )
    def contextual(
        context: dg.AssetExecutionContext, warehouse: WarehouseResource, models: ModelResource
    ) -> StepResults:
        from latentlens_dag.index.encode import encode_missing
        from latentlens_dag.index.layer_tables import fragment_files, unit_problems, write_fragments

        shard, paths = int(context.partition_key), warehouse.paths
        tables = {
            layer: paths.layer_table(index.name, layer)
            for layer, key in key_of.items()
            if key in context.selected_asset_keys
        }
        dtype = step_dtype(index.model, index.dtype)
        check_dtype_of_step(context, index, keys.index(index.name, "language_model"), dtype)
        encoder = _encoder(index, paths, dtype)
        rows = core.read_occurrences(paths.occurrences(index.name, shard))
        with scratch_folder(paths.fragments(index.name, 0, shard)) as scratch:
            encoded, rows_encoded = encode_missing(
                partial(_checked_model, index, models, dtype),
                "" if context.has_tag(FORCED) else encoder,
                rows,
                pq.read_table(paths.shard(index.corpus.name, shard)),
                tables=tables,
                scratch=scratch,
                progress=ProgressLog(context.log.info, "tokens"),
                whole=index.dedup == "sentence",
            )
            for layer, table in tables.items():
                record = paths.fragments(index.name, layer, shard)
                facts = write_fragments(table, record, rows, *encoded[layer], encoder, dtype)
                check = check_result("finite_unit_vectors", key_of[layer], unit_problems(encoded[layer].vectors))
                metadata = {
                    "dagster/row_count": facts.rows,
                    "width": facts.width,
                    "rows_encoded": rows_encoded,
                    "dtype": dtype,
                }
                files = [record, *fragment_files(table, record)]
                yield from fail_on_errors(result(key_of[layer], facts.content, metadata, files, [check]))

    return contextual


def _checked_model(index: IndexSpec, models: ModelResource, dtype: str) -> "LanguageModel":
    """The index's language model, after a check that states of equal keys are equal."""
    from latentlens_dag.models.self_checks import check_index_model

    model = models.cache.language_model(index.model, dtype)
    check_index_model(model, index.dedup, index.name)
    return model


def _unless_prefix(index: IndexSpec) -> dict[str, str]:
    """The field `dedup` where it is not the default, so that code versions from before it existed still hold."""
    return {} if index.dedup == "prefix" else {"dedup": index.dedup}


def _encoder(index: IndexSpec, paths: Warehouse, dtype: str) -> str:
    """A hash of what makes the index's vectors: the model's files (or commit), the algorithm, `dedup`, the dtype."""
    memory = paths.observed(".".join(keys.index(index.name, "language_model").path))
    version = content_version(index.model, memory)
    options = [*_unless_prefix(index).values(), *([] if dtype == "float32" else [dtype])]
    return hash_values([_CONTEXTUAL, version, *options])


def _tables(index: IndexSpec) -> dg.AssetsDefinition:
    key_of = {layer: keys.table(index.name, layer) for layer in index.layers}
    deps = {layer: [keys.contextual(index.name, layer)] for layer in index.layers}
    sinks = {} if index.sinks == "exclude" else {"sinks": index.sinks}
    version = version_fields(_TABLE, shards=index.corpus.shards, **sinks)

    @dg.multi_asset(
        name=f"{index.name}_table",
        specs=layer_specs(key_of, deps, version, {"lancedb"}, _TABLE_TEXT),
        check_specs=[dg.AssetCheckSpec("row_count", asset=key, blocking=True) for key in key_of.values()],
        can_subset=True,
    )
    def table(context: dg.AssetExecutionContext, warehouse: WarehouseResource) -> StepResults:
        for layer, key in key_of.items():
            if key in context.selected_asset_keys:
                yield from fail_on_errors(_commit_layer(index, layer, context, warehouse.paths))

    return table


def _commit_layer(
    index: IndexSpec, layer: int, context: dg.AssetExecutionContext, paths: Warehouse
) -> dg.MaterializeResult:
    """Make the shards' fragments the new version of a layer's table, and check that no row is missing."""
    from latentlens_dag.index import lance_files
    from latentlens_dag.index import layer_tables as tables

    key, table = keys.table(index.name, layer), paths.layer_table(index.name, layer)
    fragments = [paths.fragments(index.name, layer, shard) for shard in range(index.corpus.shards)]
    facts = tables.commit_fragments(
        table, fragments, provenance_json(run=context.run_id, index=index.name), index.sinks
    )
    if facts.sinks:
        context.log.info(
            f"{facts.sinks:,} of the {facts.rows:,} rows of layer {layer} are attention sinks, and no answers."
        )
    rows = lance_files.count_rows(table)
    metadata = {
        "dagster/row_count": rows,
        "sinks": facts.sinks,
        "dagster/column_schema": column_schema(tables.layer_schema(facts.width)),
        **_approximate_index(table, rows, layer, context),
    }
    tables.drop_old_versions(table, _OLD_VERSIONS)
    selected = pq.ParquetFile(paths.selection(index.name)).metadata.num_rows
    problems = [] if rows == selected else [f"{rows} rows in the table, {selected} occurrences in the selection"]
    checks = [check_result("row_count", key, problems)]
    recorded = _recorded(context, index, layer)
    return result(key, facts.content, metadata, tables.version_files(table), checks, recorded)


def _approximate_index(table: Path, rows: int, layer: int, context: dg.AssetExecutionContext) -> dict[str, object]:
    """Index a table for single queries where it is large enough; give the measured recall."""
    from latentlens_dag.index.approximate import WORTH_ROWS, build_approximate_index

    if rows < WORTH_ROWS:
        return {}
    context.log.info(f"Indexing the {rows:,} rows of layer {layer} for single queries.")
    recall = build_approximate_index(table).recall
    return {"recall_at_5_by_nprobes": {str(nprobes): share for nprobes, share in recall.items()}}


def _recorded(context: dg.AssetExecutionContext, index: IndexSpec, layer: int) -> list[FileFacts]:
    """The facts of a layer's fragments, as its shards recorded them."""
    store, asset = store_of(context), keys.contextual(index.name, layer).to_user_string()
    records = [store.read(asset, name) for name in keys.partitions(index.corpus.shards).get_partition_keys()]
    return [fact for record in records if record is not None for fact in record.files]
