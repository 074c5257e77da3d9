"""The assets of a study: model checks, visual states, three lenses, judgements, summaries, catalog."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq

from latentlens_dag.dag import keys
from latentlens_dag.dag.checks import check_spec, checked, neighbor_problems, verdict
from latentlens_dag.dag.corpus_assets import model_source
from latentlens_dag.dag.reporting import result, written
from latentlens_dag.dag.resources import WarehouseResource
from latentlens_dag.dag.versions import version_of
from latentlens_dag.hub_models import HubModel
from latentlens_dag.schema import (
    DIVERSITY,
    INTERPRETABILITY,
    JUDGEMENTS,
    LATENTLENS,
    LAYER_ALIGNMENT,
    NEIGHBORS,
    VISUAL_TOKENS,
)
from latentlens_dag.warehouse import Warehouse, write_json, write_parquet

if TYPE_CHECKING:
    from latentlens_dag.dag.components import ImageSet, Index, Study
    from latentlens_dag.states import LanguageModel

# Algorithms: raise one when the same input would give other bytes.
_MODEL_CHECKS, _VISUAL, _LENS, _JUDGEMENTS, _INTERPRETABILITY, _ANALYSIS, _CATALOG = 2, 2, 1, 1, 1, 1, 1


@dataclass(frozen=True)
class StudyParts:
    """A study with what it names, resolved and checked."""

    study: "Study"
    vlm: Path | HubModel
    index: "Index"
    images: "ImageSet"
    visual_layers: list[int]
    contextual_layers: list[int]
    shards: int

    @property
    def name(self) -> str:
        """The study's name."""
        return self.study.name

    @property
    def group(self) -> str:
        """The group of its assets."""
        return f"study_{self.study.name}"

    @property
    def vlm_key(self) -> dg.AssetKey:
        """The observed source that is its model."""
        return keys.study(self.name, "vlm")

    def layer_keys(self, part: str) -> dict[int, dg.AssetKey]:
        """The assets of one kind, by visual layer."""
        return {layer: keys.study_layer(self.name, part, layer) for layer in self.visual_layers}

    def all_batches(self) -> range:
        """The numbers of its batches."""
        return range(self.images.batches)


def study_definitions(parts: StudyParts) -> dg.Definitions:
    """visual -> lenses -> judgements -> summaries -> catalog."""
    assets: list[Any] = [model_source(parts.vlm_key, parts.vlm, parts.group), _model_checks(parts), _visual(parts)]
    assets += [_lens(parts, lens) for lens in parts.study.lenses]
    if parts.study.judge != "none":
        assets += [_judgements(parts), _interpretability(parts)]
    return dg.Definitions(assets=[*assets, *_analyses(parts), _catalog(parts)])


def _model_checks(parts: StudyParts) -> dg.AssetsDefinition:
    from latentlens_dag.model_checks import CHECKS

    key = keys.study(parts.name, "model_checks")
    # An index of whole sentences does not need a causal model: the figure is told, but stops nothing.
    not_needed = {"causality"} if parts.index.dedup == "sentence" else set()
    fields = {"not_needed": sorted(not_needed)} if not_needed else {}

    @dg.asset(
        key=key,
        deps=[parts.vlm_key, keys.index(parts.index.name, "language_model")],
        group_name=parts.group,
        kinds={"torch", "transformers"},
        code_version=version_of(_MODEL_CHECKS, prompt=parts.study.prompt, **fields),
        check_specs=[check_spec(name, key) for name in CHECKS],
        description="Self-checks of the model: what the lenses rely on, measured on the model itself.",
    )
    def model_checks(warehouse: WarehouseResource) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:
        from latentlens_dag.model_checks import check_model, check_same_model, check_text_pass, write_checks
        from latentlens_dag.models import load_vlm

        vlm = load_vlm(parts.vlm)
        _check_fits(parts, vlm.language_model)
        check_text_pass(
            vlm.language_model, parts.index.dedup, parts.index.name
        )  # says what to do; a failed check cannot
        found = check_model(vlm, parts.study.prompt)
        if not _same(parts.vlm, parts.index.named_model):
            check_same_model(found.fingerprint, parts.index.named_model, f"Study {parts.name}", parts.index.name)
        version = write_checks(found, warehouse.paths.model_checks(parts.name))
        problems = {
            check.name: [] if check.passed or check.name in not_needed else [f"{check.meaning}: {check.figure}"]
            for check in found.checks
        }
        verdicts = [verdict(name, key, problem) for name, problem in problems.items()]
        figures = {check.name: check.figure for check in found.checks}
        facts = {**figures, "prompt": found.prompt, "language_model": found.fingerprint}
        yield from checked(result(key, version, facts, verdicts))

    return model_checks


def _check_fits(parts: StudyParts, model: "LanguageModel") -> None:
    """What loading the definitions checks too, but only where the model's config is on this machine."""
    from latentlens_dag.dag.components import check_top_k
    from latentlens_dag.layers import check_layers

    place = f"Study {parts.name}"
    check_layers(parts.visual_layers, model.depth, parts.vlm.name, place)
    check_top_k(parts.study.top_k, len(model.embedding), place)


def _same(one: Path | HubModel, other: Path | HubModel) -> bool:
    return one.samefile(other) if isinstance(one, Path) and isinstance(other, Path) else one == other


def _visual(parts: StudyParts) -> dg.AssetsDefinition:
    key_of = parts.layer_keys("visual")
    tokens_key = keys.study(parts.name, "visual_tokens")
    # The model checks refuse an index of another model, so nothing is computed before them.
    deps = [keys.images(parts.images.name, "pictures"), parts.vlm_key, keys.study(parts.name, "model_checks")]
    version = version_of(_VISUAL, prompt=parts.study.prompt)

    @dg.multi_asset(
        name=f"{parts.name}_visual",
        specs=[
            *_layer_specs(parts, key_of, dict.fromkeys(key_of, deps), version, {"torch", "lance"}, _VISUAL_TEXT),
            dg.AssetSpec(
                tokens_key,
                deps=deps,
                skippable=True,
                code_version=version,
                group_name=parts.group,
                kinds={"parquet"},
                description="Where each visual token lies: view, tile, row, column, box in original pixels.",
            ),
        ],
        check_specs=[check_spec("finite_states", key) for key in key_of.values()],
        partitions_def=keys.partitions(parts.images.batches),
        can_subset=True,
    )
    def visual(
        context: dg.AssetExecutionContext, warehouse: WarehouseResource
    ) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:
        from latentlens_dag.models import load_vlm
        from latentlens_dag.studies import visual_token_table, write_visual_layer

        batch, selected = int(context.partition_key), context.selected_asset_keys
        files = _picture_files(parts, warehouse.paths, batch)
        _write_shape(parts, warehouse.paths)
        layers = [layer for layer, key in key_of.items() if key in selected]
        from latentlens_dag.images import read_images

        images = list(read_images(files))
        seen = load_vlm(parts.vlm).visual_states([image for _, image in images], layers, parts.study.prompt)
        tokens = visual_token_table(parts.name, [image_id for image_id, _ in images], seen.tokens)
        if tokens_key in selected:
            out = warehouse.paths.visual_tokens(parts.name, batch)
            write_parquet(tokens, out, VISUAL_TOKENS)
            yield written(out, tokens_key)
        for layer in layers:
            out = warehouse.paths.visual(parts.name, layer, batch)
            facts = write_visual_layer(out, tokens, seen.states[layer])
            metadata = {"dagster/row_count": len(tokens), "mean_norm": facts.mean_norm}
            yield from checked(
                result(
                    key_of[layer], facts.content, metadata, [verdict("finite_states", key_of[layer], facts.problems)]
                )
            )

    return visual


def _lens(parts: StudyParts, lens: str) -> dg.AssetsDefinition:
    key_of, visual_key_of = parts.layer_keys(lens), parts.layer_keys("visual")
    if lens == LATENTLENS:
        shared = [keys.table(parts.index.name, layer) for layer in parts.contextual_layers]
    else:
        shared = [parts.vlm_key]
    deps = {layer: [visual_key_of[layer], *shared] for layer in key_of}
    version = version_of(_LENS, top_k=parts.study.top_k, unique=parts.study.unique)

    @dg.multi_asset(
        name=f"{parts.name}_{lens}",
        specs=_layer_specs(parts, key_of, deps, version, {"torch", "parquet"}, _LENS_TEXT[lens]),
        check_specs=[check_spec("sorted_neighbors", key) for key in key_of.values()],
        partitions_def=keys.partitions(parts.images.batches),
        can_subset=True,
    )
    def neighbors(
        context: dg.AssetExecutionContext, warehouse: WarehouseResource
    ) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:
        from latentlens_dag.tables import read_states

        batch, paths = int(context.partition_key), warehouse.paths
        layers = [layer for layer, key in key_of.items() if key in context.selected_asset_keys]
        states = {layer: read_states(paths.visual(parts.name, layer, batch)) for layer in layers}
        for layer, table in _answers(parts, lens, paths, states, context.log.info):
            out = paths.neighbors(parts.name, lens, layer, batch)
            write_parquet(table, out, NEIGHBORS)
            problems = neighbor_problems(table, len(states[layer].image_ids), parts.study.top_k)
            yield from checked(written(out, key_of[layer], [verdict("sorted_neighbors", key_of[layer], problems)]))

    return neighbors


def _answers(
    parts: StudyParts, lens: str, paths: Warehouse, states: Mapping[int, Any], log: Callable[[str], None]
) -> Iterator[tuple[int, pa.Table]]:
    """The lens's answers, layer by layer."""
    from latentlens_dag import studies
    from latentlens_dag.dag.reporting import LoggedProgress
    from latentlens_dag.index_folder import IndexFiles
    from latentlens_dag.models import load_language_model

    if lens == LATENTLENS:
        index = IndexFiles(
            {layer: paths.layer_table(parts.index.name, layer) for layer in parts.contextual_layers},
            [paths.occurrences(parts.index.name, shard) for shard in range(parts.shards)],
        )
        progress = LoggedProgress(log, "rows")
        return studies.latent_answers(parts.name, states, index, parts.study.top_k, progress, parts.study.unique)
    model = load_language_model(parts.vlm)
    return studies.vocabulary_answers(parts.name, lens, states, model, parts.study.top_k, parts.study.unique)


def _judgements(parts: StudyParts) -> dg.AssetsDefinition:
    key_of = parts.layer_keys("judgements")
    # Chance is judged against patches of other images, so every batch's truth is read.
    truth = [
        dg.AssetDep(key, partition_mapping=dg.AllPartitionMapping())
        for key in (
            keys.images(parts.images.name, "regions"),
            keys.images(parts.images.name, "pictures"),
            keys.study(parts.name, "visual_tokens"),
        )
    ]
    deps = {layer: [*(parts.layer_keys(lens)[layer] for lens in parts.study.lenses), *truth] for layer in key_of}
    version = version_of(_JUDGEMENTS, lenses=parts.study.lenses, batches=parts.images.batches)

    @dg.multi_asset(
        name=f"{parts.name}_judgements",
        specs=_layer_specs(parts, key_of, deps, version, {"parquet"}, _JUDGEMENTS_TEXT),
        partitions_def=keys.partitions(parts.images.batches),
        can_subset=True,
    )
    def judgements(
        context: dg.AssetExecutionContext, warehouse: WarehouseResource
    ) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:
        from latentlens_dag.judges import judge_regions

        batch, paths = int(context.partition_key), warehouse.paths
        truth = _truth(parts, paths)
        for layer, key in key_of.items():
            if key in context.selected_asset_keys:
                files = [paths.neighbors(parts.name, lens, layer, batch) for lens in parts.study.lenses]
                out = paths.judgements(parts.name, layer, batch)
                write_parquet(judge_regions(pa.concat_tables(_each(files)), truth), out, JUDGEMENTS)
                yield written(out, key)

    return judgements


def _interpretability(parts: StudyParts) -> dg.AssetsDefinition:
    def compute(paths: Warehouse) -> pa.Table:
        from latentlens_dag.scores import interpretability

        files = [paths.judgements(parts.name, layer, b) for layer in parts.visual_layers for b in parts.all_batches()]
        return interpretability(_each(files))

    deps = [*parts.layer_keys("judgements").values()]
    text = "The share of visual tokens with a related word, by lens, layer and group, with interval and chance."
    return _summary(parts, "interpretability", deps, compute, INTERPRETABILITY, version_of(_INTERPRETABILITY), text)


def _analyses(parts: StudyParts) -> list[dg.AssetsDefinition]:
    def neighbors(paths: Warehouse, lenses: list[str]) -> Iterable[pa.Table]:
        layers, batches = parts.visual_layers, parts.all_batches()
        return _each([paths.neighbors(parts.name, lens, v, b) for lens in lenses for v in layers for b in batches])

    def alignment(paths: Warehouse) -> pa.Table:
        from latentlens_dag.analyses import layer_alignment

        return layer_alignment(neighbors(paths, [LATENTLENS]))

    def distinct(paths: Warehouse) -> pa.Table:
        from latentlens_dag.analyses import diversity

        return diversity(neighbors(paths, list(parts.study.lenses)))

    deps = [key for lens in parts.study.lenses for key in parts.layer_keys(lens).values()]
    version = version_of(_ANALYSIS)
    found = [_summary(parts, "diversity", deps, distinct, DIVERSITY, version, "Distinct words among the answers.")]
    if LATENTLENS in parts.study.lenses:
        deps = [*parts.layer_keys(LATENTLENS).values()]
        text = "From which contextual layers each visual layer's neighbors come."
        found.append(_summary(parts, "layer_alignment", deps, alignment, LAYER_ALIGNMENT, version, text))
    return found


def _summary(
    parts: StudyParts,
    name: str,
    deps: list[dg.AssetKey],
    compute: Callable[[Warehouse], pa.Table],
    schema: pa.Schema,
    version: str,
    text: str,
) -> dg.AssetsDefinition:
    @dg.asset(
        key=keys.study(parts.name, name),
        deps=deps,
        group_name=parts.group,
        kinds={"polars", "parquet"},
        code_version=f"{version}-{parts.images.batches}",
        description=text,
    )
    def summary(warehouse: WarehouseResource) -> dg.MaterializeResult:
        out = warehouse.paths.summary(parts.name, name)
        write_parquet(compute(warehouse.paths), out, schema)
        return written(out)

    return summary


def _catalog(parts: StudyParts) -> dg.AssetsDefinition:
    judged = parts.study.judge != "none"
    names = ["diversity", *(["interpretability"] if judged else [])]
    names += ["layer_alignment"] if LATENTLENS in parts.study.lenses else []
    deps = [keys.study(parts.name, name) for name in (*names, "visual_tokens", "model_checks")]
    deps += [key for lens in parts.study.lenses for key in parts.layer_keys(lens).values()]
    deps += list(parts.layer_keys("judgements").values()) if judged else []

    @dg.asset(
        key=keys.study(parts.name, "catalog"),
        deps=deps,
        group_name=parts.group,
        kinds={"duckdb"},
        code_version=version_of(
            _CATALOG, images=parts.images.name, batches=parts.images.batches, index=parts.index.name
        ),
        description="The study's tables in one DuckDB file.",
    )
    def catalog(warehouse: WarehouseResource) -> dg.MaterializeResult:
        from latentlens_dag.queries import write_catalog

        out = warehouse.paths.catalog(parts.name)
        _write_shape(parts, warehouse.paths)
        write_catalog(warehouse.paths, parts.name, out, index=parts.index.name)
        return dg.MaterializeResult(metadata={"size_bytes": out.stat().st_size})

    return catalog


_VISUAL_TEXT = "The states of the visual tokens entering block {layer}; one forward pass for all layers."
_JUDGEMENTS_TEXT = (
    "For every visual token at layer {layer} and every lens: concrete, abstract, global or none, and chance."
)
_LENS_TEXT = {
    "latentlens": "The nearest contextual states of each visual token at layer {layer}, over all contextual layers.",
    "logitlens": "The vocabulary tokens with the highest logits for each visual token at layer {layer}.",
    "embeddinglens": "The vocabulary tokens whose input embeddings are nearest to each visual token at layer {layer}.",
}


def _layer_specs(
    parts: StudyParts,
    key_of: Mapping[int, dg.AssetKey],
    deps: Mapping[int, list],
    version: str,
    kinds: set[str],
    text: str,
) -> list[dg.AssetSpec]:
    return [
        dg.AssetSpec(
            key,
            deps=deps[layer],
            skippable=True,
            code_version=version,
            group_name=parts.group,
            kinds=kinds,
            description=text.format(layer=layer),
        )
        for layer, key in key_of.items()
    ]


def _write_shape(parts: StudyParts, paths: Warehouse) -> None:
    shape = {"parts": parts.images.batches, "visual_layers": parts.visual_layers, "lenses": sorted(parts.study.lenses)}
    write_json(shape, paths.shape("study", parts.name))


def _picture_files(parts: StudyParts, paths: Warehouse, batch: int) -> list:
    from latentlens_dag.images import files_of_table
    from latentlens_dag.originals import originals_of_table

    pictures, folder = pq.read_table(paths.pictures(parts.images.name, batch)), parts.images.source.folder
    if folder is None:
        return originals_of_table(pictures, paths.originals(parts.images.name))
    return files_of_table(pictures, folder)


def _truth(parts: StudyParts, paths: Warehouse) -> Any:
    from latentlens_dag.judges import build_truth

    batches = parts.all_batches()
    return build_truth(
        _each([paths.regions(parts.images.name, b) for b in batches]),
        _each([paths.visual_tokens(parts.name, b) for b in batches]),
        _each([paths.pictures(parts.images.name, b) for b in batches]),
    )


def _each(files: list[Path]) -> Iterator[pa.Table]:
    return (pq.read_table(file) for file in files)
