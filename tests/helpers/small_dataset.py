"""A small warehouse of two studies, written by hand: what the tests of queries, catalogs and reports read."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from latentlens_dag.release.migrations import MIGRATIONS
from latentlens_dag.schema import (
    CORPUS_ABLATION,
    DECLARED_LENSES,
    DIVERSITY,
    IMAGES,
    INTERPRETABILITY,
    JUDGEMENTS,
    LATENTLENS,
    LAYER_ALIGNMENT,
    LENS_DIFFERENCES,
    NEIGHBORS,
    OCCURRENCES,
    REGIONS,
    SENTENCES,
    SINKS,
    STATE_STATISTICS,
    STUDY_CONNECTORS,
    VISUAL_TOKENS,
)
from latentlens_dag.storage.hashing import hash_bytes, text_id
from latentlens_dag.storage.parquet import write_parquet
from latentlens_dag.storage.warehouse import Warehouse
from latentlens_dag.study.answer_statistics import diversity, layer_alignment
from latentlens_dag.study.corpus_ablation import IndexPart, corpus_ablation
from latentlens_dag.study.differences import lens_differences
from latentlens_dag.study.interpretability import interpretability
from latentlens_dag.study.regions_judge import Truth, judge_regions
from tests.helpers.patch_truths import write_truths

ANIMALS = ("dog", "cat", "owl", "fox")
SENTENCES_OF = {word: f"A {word} is here." for word in (*ANIMALS, "grass", "tree")}
LAYERS = (0, 8)
TOP_K = 2
SIDE, PATCH = 32, 16


def image_id(animal: str) -> str:
    return hash_bytes(animal.encode())


def images(animals: tuple[str, ...]) -> pa.Table:
    """One image per animal, 32 x 32 pixels."""
    rows = [(image_id(animal), f"{animal}.png", SIDE, SIDE, b"thumbnail") for animal in animals]
    return pa.Table.from_pylist([dict(zip(IMAGES.names, row, strict=True)) for row in rows], schema=IMAGES)


def regions(animals: tuple[str, ...]) -> pa.Table:
    """Grass on the whole of each image but its left upper quarter, where the animal is."""
    rows = []
    for animal in animals:
        box = {"x0": 0, "y0": 0, "x1": PATCH, "y1": PATCH}
        rows.append(region(image_id(animal), "1", "object", [animal, "animal"], ["farm"], **box))
        mask = [piece for _ in range(PATCH) for piece in (PATCH, PATCH)] + [0, SIDE * (SIDE - PATCH)]
        rows.append({**region(image_id(animal), "0", "background", ["grass"], ["outdoors"]), "mask": mask})
    return pa.Table.from_pylist(rows, schema=REGIONS)


def region(image: str, region_id: str, kind: str, words: list[str], abstract: list[str], **more: Any) -> dict[str, Any]:
    """A row of REGIONS; the whole 32 x 32 image unless a box is given."""
    whole = {"x0": 0, "y0": 0, "x1": SIDE, "y1": SIDE, "mask": None, **more}
    row = {"image_id": image, "region_id": region_id, "kind": kind, "name": words[0]}
    return {**row, "words": words, "abstract_words": abstract, **whole}


def visual_tokens(study: str, animals: tuple[str, ...]) -> pa.Table:
    """Four patches per image and a newline token without a box."""
    rows: list[dict[str, Any]] = []
    for animal in animals:
        for token in range(5):
            row, col = divmod(token, 2)
            newline = token == 4
            box = [None] * 4 if newline else [col * PATCH, row * PATCH, (col + 1) * PATCH, (row + 1) * PATCH]
            values = (study, image_id(animal), token, "newline" if newline else "global", 0, row, col, *box)
            rows.append(dict(zip(VISUAL_TOKENS.names, values, strict=True)))
    return pa.Table.from_pylist(rows, schema=VISUAL_TOKENS)


def answer(study: str, image: str, token: int, layer: int, lens: str, rank: int, word: str | None) -> dict[str, Any]:
    """A row of NEIGHBORS; LatentLens answers come from the word's sentence."""
    row = dict.fromkeys(NEIGHBORS.names)
    row |= {"study": study, "image_id": image, "token_index": token, "visual_layer": layer, "lens": lens}
    row |= {"rank": rank, "word": word, "token_str": word, "token_id": 7, "cosine": 1 - rank / 10}
    if lens == LATENTLENS and word in SENTENCES_OF:
        row |= {
            "contextual_layer": 2 * rank,
            "key": hash_bytes(word.encode()),
            "sentence_id": text_id(SENTENCES_OF[word]),
        }
        row |= {"position": 1, "char_start": 2, "char_end": 2 + len(word)}
    return row


def neighbors(study: str, animals: tuple[str, ...], lens: str, layer: int) -> pa.Table:
    """LatentLens names the animal and the grass, LogitLens says grass everywhere, EmbeddingLens nothing right."""
    rows = []
    for animal in animals:
        for token in range(5):
            names = {"latentlens": (animal if token == 0 else "grass"), "logitlens": "grass"}
            words = (names.get(lens, "tree"), "tree")
            rows += [
                answer(study, image_id(animal), token, layer, lens, rank, word)
                for rank, word in enumerate(words, start=1)
            ]
    return pa.Table.from_pylist(rows, schema=NEIGHBORS)


def state_statistics(study: str) -> pa.Table:
    """States that grow from layer to layer, and turn; those of the index's text tokens are longer."""
    values = [(source, layer) for source, layers in (("visual", LAYERS), ("contextual", (2, 4))) for layer in layers]
    rows = []
    for source, layer in values:
        norm = (10.0 if source == "visual" else 20.0) + layer
        visual = source == "visual"
        drift = (None if layer == LAYERS[0] else 0.8, 1 - layer / 20) if visual else (None, None)
        lengths = (20, norm, norm / 2, norm, 2 * norm, *drift, 3 * norm, 90 * norm, int(layer == LAYERS[-1]))
        directions = (8, 19, 0.3 + layer / 40, 3, 0.2 + layer / 20, 1.0)
        hub = (19, 5, 0.25 if visual else 0.05, 2, hash_bytes(b"grass"), "grass")
        row = (study, source, layer, *lengths, *directions, *hub)
        rows.append(dict(zip(STATE_STATISTICS.names, row, strict=True)))
    return pa.Table.from_pylist(rows, schema=STATE_STATISTICS)


def null_of(answers: pa.Table) -> pa.Table:
    """A null whose answers are all from contextual layer 2: one for each of LatentLens."""
    own = answers.filter(pc.equal(answers["lens"], LATENTLENS))
    column = NEIGHBORS.field("contextual_layer")
    return own.set_column(own.column_names.index(column.name), column, pa.array([2] * len(own), column.type))


def sinks(study: str, animals: tuple[str, ...]) -> pa.Table:
    """SINKS: the first token of every picture, at the last layer."""
    rows = [(study, one, 0, LAYERS[-1], 900.0, 300.0) for one in sorted(map(image_id, animals))]
    return pa.Table.from_pylist([dict(zip(SINKS.names, row, strict=True)) for row in rows], schema=SINKS)


def study_connectors(study: str) -> pa.Table:
    """STUDY_CONNECTORS: the model is of a connector, after as many steps as the study's name has letters."""
    return pa.Table.from_pylist([{"study": study, "connector": "clip", "step": len(study)}], schema=STUDY_CONNECTORS)


def by_layer(judgements: Iterable[pa.Table]) -> dict[int, list[pl.LazyFrame]]:
    """All judgements in one part per visual layer, as `lens_differences` takes them."""
    frame = pl.DataFrame(pa.concat_tables(judgements))
    return {layer: [part.lazy()] for (layer,), part in frame.partition_by("visual_layer", as_dict=True).items()}


def ablation(judgements: Iterable[pa.Table]) -> pa.Table:
    """CORPUS_ABLATION of half of the index, which answers as all of it, and of all of it."""
    tables = [table.filter(pc.equal(table["lens"], LATENTLENS)) for table in judgements]
    return corpus_ablation({IndexPart(0.5, 3, 3, 1): tables, IndexPart(1.0, 6, 6, 1): tables}, TOP_K)


def write_study(warehouse: Warehouse, study: str, batches: tuple[tuple[str, ...], ...]) -> None:
    """All tables of a study, one batch per tuple of animals."""
    every = [animal for batch in batches for animal in batch]
    files = [
        [of(study, number) for number in range(len(batches))]
        for of in (warehouse.patch_truth, warehouse.chance_patches)
    ]
    write_truths([(regions(batch), visual_tokens(study, batch), images(batch)) for batch in batches], *files)
    truths = [Truth.of(*of_batch) for of_batch in zip(*files, strict=True)]
    judged, found = [], []
    for number, batch in enumerate(batches):
        write_parquet(visual_tokens(study, batch), warehouse.visual_tokens(study, number), VISUAL_TOKENS)
        for layer in LAYERS:
            tables = [neighbors(study, batch, lens, layer) for lens in DECLARED_LENSES]
            for lens, table in zip(DECLARED_LENSES, tables, strict=True):
                write_parquet(table, warehouse.neighbors(study, lens, layer, number), NEIGHBORS)
            judged.append(judge_regions(pa.concat_tables(tables), truths[number]))
            found += tables
            write_parquet(judged[-1], warehouse.judgements(study, layer, number), JUDGEMENTS)
    for name, table, schema in (
        ("interpretability", interpretability(judged, TOP_K), INTERPRETABILITY),
        ("lens_differences", lens_differences(study, by_layer(judged), top_k=2), LENS_DIFFERENCES),
        ("corpus_ablation", ablation(judged), CORPUS_ABLATION),
        ("layer_alignment", layer_alignment(found, null_of(pa.concat_tables(found))), LAYER_ALIGNMENT),
        ("diversity", diversity(found), DIVERSITY),
        ("state_statistics", state_statistics(study), STATE_STATISTICS),
        ("sinks", sinks(study, tuple(every)), SINKS),
        ("study_connectors", study_connectors(study), STUDY_CONNECTORS),
    ):
        write_parquet(table, warehouse.summary(study, name), schema)


def write_shared(warehouse: Warehouse, images_name: str, corpus: str, batches: tuple[tuple[str, ...], ...]) -> None:
    """An image set with its regions, a corpus, and an index of it."""
    for number, batch in enumerate(batches):
        write_parquet(images(batch), warehouse.pictures(images_name, number), IMAGES)
        write_parquet(regions(batch), warehouse.regions(images_name, number), REGIONS)
    texts = sorted(SENTENCES_OF.values(), key=text_id)
    table = pa.table({"sentence_id": [text_id(text) for text in texts], "text": texts})
    write_parquet(table, warehouse.sentences(corpus), SENTENCES)
    rows = []
    for word, text in SENTENCES_OF.items():
        values = (f"{corpus}_index", hash_bytes(word.encode()), 7, word, word, 2, 2 + len(word), 1, text_id(text))
        rows.append(dict(zip(OCCURRENCES.names, values, strict=True)))
    write_parquet(pa.Table.from_pylist(rows, schema=OCCURRENCES), warehouse.occurrences(f"{corpus}_index", 0))


def write_warehouse(root: Path) -> Warehouse:
    """Study `one` (four images, two batches) and a study with an awkward name (one image)."""
    warehouse = Warehouse(root)
    write_shared(warehouse, "pictures", "corpus", (ANIMALS[:2], ANIMALS[2:]))
    write_study(warehouse, "one", (ANIMALS[:2], ANIMALS[2:]))
    write_study(warehouse, AWKWARD, (ANIMALS[:1],))
    return warehouse


def as_first_version(warehouse: Warehouse, study: str) -> None:
    """Write the tables of a study as the first schema version had them."""
    old = MIGRATIONS[1].before
    for name in ("layer_alignment", "state_statistics"):
        file = warehouse.summary(study, name)
        write_parquet(pq.read_table(file).select(old[name].names), file, old[name])
    for file in warehouse.study(study).glob("judgements/*/*.parquet"):
        write_parquet(pq.read_table(file).select(old["judgements"].names), file, old["judgements"])
    path = warehouse.summary(study, "interpretability")
    rows: dict[tuple[object, ...], dict[str, Any]] = {}
    for row in pq.read_table(path).to_pylist():
        if row["k"] == TOP_K:
            place = ("study", "lens", "visual_layer", "judge", "patch_group", "tokens")
            old_row = rows.setdefault(tuple(row[name] for name in place), {name: row[name] for name in place})
            prefix = "" if row["measure"] == "interpretable" else f"{row['measure']}_"
            old_row |= {row["measure"]: row["share"]} | {f"{prefix}{name}": row[name] for name in _OLD_COLUMNS}
    names = old["interpretability"].names
    found = [{name: row.get(name) for name in names} for row in rows.values()]
    write_parquet(pa.Table.from_pylist(found, old["interpretability"]), path)


_OLD_COLUMNS = ("low", "high", "chance", "excess")
AWKWARD = "it's [x] *two*"
