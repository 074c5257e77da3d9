"""The assets of an index: candidates, selection, occurrences, contextual states, layer tables."""

from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

import dagster as dg
import pyarrow.parquet as pq

from latentlens_dag.dag import keys
from latentlens_dag.dag.assets.checks import check_result, check_spec, fail_on_errors
from latentlens_dag.dag.assets.reporting import ProgressLog, column_schema, parquet_result, result
from latentlens_dag.dag.assets.sources import model_source
from latentlens_dag.dag.recording import manifest_of
from latentlens_dag.dag.resources import WarehouseResource
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

_KEPT = timedelta(days=1)  # of replaced versions of a layer table: someone may be reading one
_CANDIDATES, _SELECTION, _OCCURRENCES, _CONTEXTUAL, _TABLE = 2, 1, 1, 1, 2  # algorithms


def index_definitions(index: IndexSpec) -> dg.Definitions:
    """candidates[shard] -> selection -> occurrences[shard] -> contextual/L..[shard] -> table/L.. ."""
    source = model_source(keys.index(index.name, "language_model"), index.model, f"index/{index.name}")
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
        description="What a shard offers: its tokens' distinct prefixes, of each token no more than may be kept.",
    )
    def candidates(context: dg.AssetExecutionContext, warehouse: WarehouseResource) -> dg.MaterializeResult:
        from latentlens_dag.models.loading import load_tokenizer, position_limit

        shard, positions = int(context.partition_key), position_limit(index.model)
        long: list[core.LongSentence] = []
        found = core.candidates(
            load_tokenizer(index.model),
            core.read_sentences(warehouse.paths.shard(index.corpus.name, shard)),
            index.name,
            index.contexts_per_token,
            index.min_position,
            index.fraction,
            read_order(warehouse.paths.order(index.corpus.name)) if order else None,
            index.dedup,
            positions,
            long.append,
        )
        if long:
            context.log.warning(core.long_sentences_warning(long, index.model.name, positions, index.dedup))
        out = warehouse.paths.candidates(index.name, shard)
        write_parquet(found, out)
        return parquet_result(out, long_sentences=len(long))

    return candidates


def _selection(index: IndexSpec) -> dg.AssetsDefinition:
    @dg.asset(
        key=keys.index(index.name, "selection"),
        deps=[keys.index(index.name, "candidates")],
        group_name=f"index/{index.name}",
        kinds={"polars", "parquet"},
        **version_fields(_SELECTION, contexts_per_token=index.contexts_per_token, shards=index.corpus.shards),
        description="The occurrences that the index keeps, over all shards.",
    )
    def selection(warehouse: WarehouseResource) -> dg.MaterializeResult:
        files = [warehouse.paths.candidates(index.name, shard) for shard in range(index.corpus.shards)]
        out = warehouse.paths.selection(index.name)
        core.write_selection(files, index.contexts_per_token, out)
        return parquet_result(out)

    return selection


def _occurrences(index: IndexSpec) -> dg.AssetsDefinition:
    corpus = index.corpus
    shape = IndexShape(parts=corpus.shards, layers=index.layers, language_model=index.model.name, corpus=corpus.name)

    @dg.asset(
        key=keys.index(index.name, "occurrences"),
        deps=[keys.index(index.name, "candidates"), keys.index(index.name, "selection")],
        partitions_def=keys.partitions(index.corpus.shards),
        group_name=f"index/{index.name}",
        kinds={"polars", "parquet"},
        **version_fields(_OCCURRENCES, shape=shape.to_json()),
        description="The shard's occurrences that the selection kept, in order of key.",
    )
    def occurrences(context: dg.AssetExecutionContext, warehouse: WarehouseResource) -> dg.MaterializeResult:
        shard = int(context.partition_key)
        shape.write(warehouse.paths.shape("index", index.name))
        kept = core.selected_rows(warehouse.paths.candidates(index.name, shard), warehouse.paths.selection(index.name))
        out = warehouse.paths.occurrences(index.name, shard)
        write_parquet(kept, out, OCCURRENCES)
        return parquet_result(out, beside=[warehouse.paths.shape("index", index.name)])

    return occurrences


def _contextual(index: IndexSpec) -> dg.AssetsDefinition:
    key_of = {layer: keys.contextual(index.name, layer) for layer in index.layers}
    # The sentences' texts are read too, but their ids, which the occurrences hold, are the hashes of the texts.
    deps = [keys.index(index.name, "occurrences"), keys.index(index.name, "language_model")]

    @dg.multi_asset(
        name=f"{index.name}_contextual",
        specs=[
            dg.AssetSpec(
                key,
                deps=deps,
                skippable=True,
                **version_fields(_CONTEXTUAL, **_unless_prefix(index)),
                group_name=f"index/{index.name}/contextual",
                kinds={"torch", "lance"},
                description=f"The occurrences' states entering block {layer}; one forward pass for all layers.",
            )
            for layer, key in key_of.items()
        ],
        check_specs=[check_spec("finite_unit_vectors", key) for key in key_of.values()],
        partitions_def=keys.partitions(index.corpus.shards),
        can_subset=True,
    )
    def contextual(
        context: dg.AssetExecutionContext, warehouse: WarehouseResource
    ) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:
        from latentlens_dag.index.encode import encode_missing
        from latentlens_dag.index.layer_tables import fragment_files, unit_problems, write_fragments

        shard, paths = int(context.partition_key), warehouse.paths
        wanted = {layer: key for layer, key in key_of.items() if key in context.selected_asset_keys}
        encoder = _encoder(index, paths)
        rows = core.read_occurrences(paths.occurrences(index.name, shard))
        sentences = pq.read_table(paths.shard(index.corpus.name, shard))
        with scratch_folder(paths.fragments(index.name, 0, shard)) as scratch:
            progress = ProgressLog(context.log.info, "tokens")
            tables = {layer: paths.layer_table(index.name, layer) for layer in wanted}
            known = "" if context.has_tag(FORCED) else encoder
            whole = index.dedup == "sentence"
            load = partial(_checked_model, index)
            encoded, read = encode_missing(load, known, rows, sentences, tables, scratch, progress, whole)
            for layer, key in wanted.items():
                record = paths.fragments(index.name, layer, shard)
                facts = write_fragments(tables[layer], record, rows, *encoded[layer], encoder)
                problems = unit_problems(encoded[layer].vectors)
                metadata = {"dagster/row_count": facts.rows, "width": facts.width, "rows_encoded": read}
                files = [record, *fragment_files(tables[layer], record)]
                verdicts = [check_result("finite_unit_vectors", key, problems)]
                yield from fail_on_errors(result(key, facts.content, metadata, files, verdicts))

    return contextual


def _checked_model(index: IndexSpec) -> "LanguageModel":
    """The index's language model, once it is known that states of equal keys are equal."""
    from latentlens_dag.models.loading import load_language_model
    from latentlens_dag.models.self_checks import check_index_model

    model = load_language_model(index.model)
    check_index_model(model, index.dedup, index.name)
    return model


def _unless_prefix(index: IndexSpec) -> dict[str, str]:
    """The field `dedup` where it is not the default, so that versions of before it was there still hold."""
    return {} if index.dedup == "prefix" else {"dedup": index.dedup}


def _encoder(index: IndexSpec, paths: Warehouse) -> str:
    """What the index's vectors are made by: the model's files (or commit), the algorithm, what is read, the dtype."""
    from latentlens_dag.models.loading import chosen_dtype

    model, dtype = index.model, chosen_dtype(index.model)
    memory = paths.observed(".".join(keys.index(index.name, "language_model").path))
    version = content_version(model, memory)
    special = [*_unless_prefix(index).values(), *([] if dtype == "float32" else [dtype])]
    return hash_values([_CONTEXTUAL, version, *special])


def _tables(index: IndexSpec) -> dg.AssetsDefinition:
    key_of = {layer: keys.table(index.name, layer) for layer in index.layers}
    version = version_fields(
        _TABLE, shards=index.corpus.shards, **({} if index.sinks == "exclude" else {"sinks": index.sinks})
    )

    @dg.multi_asset(
        name=f"{index.name}_table",
        specs=[
            dg.AssetSpec(
                key,
                deps=[keys.contextual(index.name, layer)],
                skippable=True,
                **version,
                group_name=f"index/{index.name}/table",
                kinds={"lancedb"},
                description=f"The layer table of contextual layer {layer}: one row per occurrence, one atomic version.",
            )
            for layer, key in key_of.items()
        ],
        check_specs=[check_spec("row_count", key) for key in key_of.values()],
        can_subset=True,
    )
    def table(
        context: dg.AssetExecutionContext, warehouse: WarehouseResource
    ) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:
        from latentlens_dag.index import lance_files
        from latentlens_dag.index import layer_tables as tables
        from latentlens_dag.index.approximate import WORTH_ROWS, build_approximate_index

        paths = warehouse.paths
        kept = pq.ParquetFile(paths.selection(index.name)).metadata.num_rows
        for layer, key in key_of.items():
            if key not in context.selected_asset_keys:
                continue
            records = [paths.fragments(index.name, layer, shard) for shard in range(index.corpus.shards)]
            target = paths.layer_table(index.name, layer)
            made = provenance_json(run=context.run_id, index=index.name)
            facts = tables.commit_fragments(target, records, made, index.sinks)
            if facts.sinks:
                context.log.info(
                    f"{facts.sinks:,} of the {facts.rows:,} rows of layer {layer} are attention sinks, and no answers."
                )
            rows = lance_files.count_rows(target)
            indexed: dict[str, object] = {}
            if rows >= WORTH_ROWS:
                context.log.info(f"Indexing the {rows:,} rows of layer {layer} for single queries.")
                recall = build_approximate_index(target).recall
                indexed = {"recall_at_5_by_nprobes": {str(nprobes): share for nprobes, share in recall.items()}}
            tables.drop_old_versions(target, _KEPT)
            problems = [] if rows == kept else [f"{rows} rows in the table, {kept} occurrences in the selection"]
            metadata = {
                "dagster/row_count": rows,
                "sinks": facts.sinks,
                "dagster/column_schema": column_schema(tables.layer_schema(facts.width)),
                **indexed,
            }
            files, known = tables.version_files(target), _recorded(context, index, layer)
            yield from fail_on_errors(
                result(key, facts.content, metadata, files, [check_result("row_count", key, problems)], known)
            )

    return table


def _recorded(context: dg.AssetExecutionContext, index: IndexSpec, layer: int) -> list[FileFacts]:
    """The facts of a layer's fragments, which its shards recorded."""
    manifest, asset = manifest_of(context), keys.contextual(index.name, layer).to_user_string()
    records = [manifest.read(asset, name) for name in keys.partitions(index.corpus.shards).get_partition_keys()]
    return [fact for record in records if record is not None for fact in record.files]
