"""A warehouse with studies of random answers, built as far as a release needs it, and releases of it."""

import hashlib
import io
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from latentlens_dag.dataset.study_catalog import write_catalog
from latentlens_dag.index.layer_tables import commit_fragments, write_fragments
from latentlens_dag.publish.about import About
from latentlens_dag.publish.stage_index import ReleasedIndex, stage_index
from latentlens_dag.publish.stage_results import ReleasedStudy, stage_tables
from latentlens_dag.release.manifest import ReleaseManifest
from latentlens_dag.schema import (
    CORPUS_ABLATION,
    DIVERSITY,
    IMAGES,
    INTERPRETABILITY,
    JUDGEMENTS,
    LATENTLENS,
    LAYER_ALIGNMENT,
    LENS_DIFFERENCES,
    LENSES,
    NEIGHBORS,
    OCCURRENCES,
    REGIONS,
    SENTENCES,
    SINKS,
    STATE_STATISTICS,
    VISUAL_TOKENS,
)
from latentlens_dag.storage.hashing import hash_bytes, text_id
from latentlens_dag.storage.parquet import write_parquet
from latentlens_dag.storage.shapes import IndexShape
from latentlens_dag.storage.warehouse import Warehouse
from latentlens_dag.study.answer_statistics import diversity, layer_alignment
from latentlens_dag.study.differences import lens_differences
from latentlens_dag.study.interpretability import interpretability
from tests.helpers.small_dataset import ablation, by_layer, state_statistics

WORDS = ("dog", "cat", "owl", "fox", "tree", "grass", "moon", "lake")
TEXTS = sorted((f"A {word} is near a {other}." for word in WORDS for other in WORDS), key=text_id)
LAYERS, SIDE, GRID, TOP_K, WIDTH = (0, 4), 64, 8, 5, 32
ABOUT = About("small", "user/small", "A small release", "apache-2.0", "drawn for these tests", "written for them")
INDEX = {
    "name": "words",
    "corpus": "text",
    "contexts_per_token": 5,
    "sampling": "smallest_hash",
    "fraction": 1.0,
    "min_position": 1,
    "dedup": "prefix",
    "model": {"name": "model", "revision": None},
    "contextual_layers": [1, 2],
    "source": "corpus.txt",
}
DECLARED: dict[str, Any] = {
    "kind": "images",
    "model": {"name": "model", "revision": None},
    "prompt": "What is this?",
    "visual_layers": list(LAYERS),
    "lenses": list(LENSES),
    "top_k": TOP_K,
    "unique": "none",
    "judge": "regions",
    "images": {"name": "pictures", "source": "pictures"},
    "index": INDEX,
}


def image_id(number: int) -> str:
    return hash_bytes(f"picture {number}".encode())


def _random(*seed: object) -> random.Random:
    return random.Random(hashlib.sha256(repr(seed).encode()).digest())


def thumbnail(number: int) -> bytes:
    noise = Image.frombytes("RGB", (SIDE, SIDE), _random(number).randbytes(3 * SIDE * SIDE))
    buffer = io.BytesIO()
    noise.save(buffer, "WEBP", quality=80)
    return buffer.getvalue()


def _images(numbers: Sequence[int]) -> pa.Table:
    rows = [(image_id(n), f"{n}.png", SIDE, SIDE, thumbnail(n)) for n in numbers]
    return pa.Table.from_pylist([dict(zip(IMAGES.names, row, strict=True)) for row in rows], schema=IMAGES)


def _regions(numbers: Sequence[int]) -> pa.Table:
    box = {"x0": 0, "y0": 0, "x1": SIDE, "y1": SIDE, "mask": None}
    rows = [
        {"image_id": image_id(n), "region_id": "0", "kind": "object", "name": "dog", "words": ["dog"], **box}
        | {"abstract_words": ["animal"]}
        for n in numbers
    ]
    return pa.Table.from_pylist(rows, schema=REGIONS)


def _tokens(study: str, numbers: Sequence[int]) -> pa.Table:
    patch = SIDE / GRID
    rows = []
    for image in map(image_id, numbers):
        for token in range(GRID * GRID):
            row, col = divmod(token, GRID)
            box = (col * patch, row * patch, (col + 1) * patch, (row + 1) * patch)
            rows.append(dict(zip(VISUAL_TOKENS.names, (study, image, token, "global", 0, row, col, *box), strict=True)))
    return pa.Table.from_pylist(rows, schema=VISUAL_TOKENS)


def _neighbors(study: str, lens: str, layer: int, numbers: Sequence[int]) -> pa.Table:
    rows = []
    for number in numbers:
        source = _random(study, lens, layer, number)
        for token in range(GRID * GRID):
            for rank in range(1, TOP_K + 1):
                row = dict.fromkeys(NEIGHBORS.names)
                row |= {"study": study, "image_id": image_id(number), "token_index": token, "visual_layer": layer}
                row |= {"lens": lens, "rank": rank, "token_id": source.randrange(4096), "word": source.choice(WORDS)}
                row["token_str"] = row["word"]
                row[LENSES[lens].score] = source.random() - rank
                if lens == LATENTLENS:
                    row |= {"contextual_layer": source.choice((1, 2)), "key": hash_bytes(source.randbytes(8))}
                    row |= {"sentence_id": text_id(source.choice(TEXTS[:9])), "position": 1}
                    row |= {"char_start": 2, "char_end": 5}
                rows.append(row)
    return pa.Table.from_pylist(rows, schema=NEIGHBORS)


def _judgements(study: str, layer: int, numbers: Sequence[int]) -> pa.Table:
    verdicts = ("concrete", "abstract", "global", "none")
    rows = []
    for number in numbers:
        source = _random(study, layer, number, "judged")
        for lens in LENSES:
            for token in range(GRID * GRID):
                words, group = [source.choice(WORDS)], source.choice(("object", "background"))
                values = (study, image_id(number), token, layer, lens, "regions", source.choice(verdicts))
                values += (words, group, source.choice(verdicts), [1, 0, 1, 2], source.choice(verdicts), [0, 1, 1, 2])
                rows.append(dict(zip(JUDGEMENTS.names, values, strict=True)))
    return pa.Table.from_pylist(rows, schema=JUDGEMENTS)


def write_study(warehouse: Warehouse, study: str, batches: Sequence[Sequence[int]], judged: bool = True) -> None:
    """A study of the images of these numbers, with its catalog."""
    found, verdicts = [], []
    for number, batch in enumerate(batches):
        write_parquet(_tokens(study, batch), warehouse.visual_tokens(study, number), VISUAL_TOKENS)
        for layer in LAYERS:
            for lens in LENSES:
                found.append(_neighbors(study, lens, layer, batch))
                write_parquet(found[-1], warehouse.neighbors(study, lens, layer, number), NEIGHBORS)
            if judged:
                verdicts.append(_judgements(study, layer, batch))
                write_parquet(verdicts[-1], warehouse.judgements(study, layer, number), JUDGEMENTS)
    latent = [table for table in found if table["lens"][0].as_py() == LATENTLENS]
    write_parquet(layer_alignment(latent), warehouse.summary(study, "layer_alignment"), LAYER_ALIGNMENT)
    write_parquet(diversity(found), warehouse.summary(study, "diversity"), DIVERSITY)
    write_parquet(state_statistics(study), warehouse.summary(study, "state_statistics"), STATE_STATISTICS)
    first = {"study": study, "token_index": 0, "visual_layer": LAYERS[-1], "norm": 900.0, "sink_norm": 300.0}
    ids = sorted(image_id(number) for batch in batches for number in batch)
    found_sinks = pa.Table.from_pylist([{**first, "image_id": one} for one in ids], schema=SINKS)
    write_parquet(found_sinks, warehouse.summary(study, "sinks"), SINKS)
    if judged:
        write_parquet(interpretability(verdicts, TOP_K), warehouse.summary(study, "interpretability"), INTERPRETABILITY)
        differences = lens_differences(study, by_layer(verdicts), TOP_K)
        write_parquet(differences, warehouse.summary(study, "lens_differences"), LENS_DIFFERENCES)
        write_parquet(ablation(verdicts), warehouse.summary(study, "corpus_ablation"), CORPUS_ABLATION)
    write_catalog(warehouse, study, warehouse.catalog(study))


def write_shared(warehouse: Warehouse, batches: Sequence[Sequence[int]]) -> None:
    """The images, the corpus, and an index without tables."""
    for number, batch in enumerate(batches):
        write_parquet(_images(batch), warehouse.pictures("pictures", number), IMAGES)
        write_parquet(_regions(batch), warehouse.regions("pictures", number), REGIONS)
    table = pa.table({"sentence_id": [text_id(text) for text in TEXTS], "text": TEXTS})
    write_parquet(table, warehouse.sentences("text"), SENTENCES)
    values = ("words", hash_bytes(b"dog"), 7, "dog", "dog", 2, 5, 1, text_id(TEXTS[0]))
    rows = [dict(zip(OCCURRENCES.names, values, strict=True))]
    write_parquet(pa.Table.from_pylist(rows, schema=OCCURRENCES), warehouse.occurrences("words", 0))
    IndexShape(parts=1, layers=[1, 2], language_model="model", corpus="text").write(warehouse.shape("index", "words"))


def write_warehouse(root: Path, images: int = 3, batches: int = 2, judged: bool = True) -> Warehouse:
    """The study `one` of some images."""
    warehouse = Warehouse(root)
    cut = [[n for n in range(images) if n % batches == batch] for batch in range(batches)]
    write_shared(warehouse, cut)
    write_study(warehouse, "one", cut, judged)
    return warehouse


def stage(warehouse: Warehouse, *studies: str, about: About = ABOUT, **options: Any) -> ReleaseManifest:
    """Stage a release of studies of the warehouse, by default of `one`, with pictures."""
    released = [ReleasedStudy(name, "text", "words", DECLARED, f"study/{name}/vlm") for name in studies or ("one",)]
    return stage_tables(warehouse, about, released, **{"thumbnails": True, **options})


def contents(folder: Path) -> dict[str, bytes]:
    """What a folder holds, by path."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def write_index(warehouse: Warehouse, name: str = "words", layers: Sequence[int] = (1, 2), rows: int = 200) -> None:
    """An index with tables of random unit vectors, as a build leaves it, in two shards."""
    keys = sorted(hash_bytes(f"key {number}".encode()) for number in range(rows))
    for shard in range(2):
        mine = keys[shard::2]
        values = [
            (name, key, 7, WORDS[n % 8], WORDS[n % 8], 2, 5, 1, text_id(TEXTS[n % 30])) for n, key in enumerate(mine)
        ]
        table = pa.Table.from_pylist([dict(zip(OCCURRENCES.names, one, strict=True)) for one in values], OCCURRENCES)
        write_parquet(table, warehouse.occurrences(name, shard), OCCURRENCES)
        for layer in layers:
            vectors = np.random.default_rng((layer, shard)).standard_normal((len(mine), WIDTH)).astype(np.float32)
            norms = np.linalg.norm(vectors, axis=1)
            unit = (vectors / norms[:, None]).astype(np.float16)
            record = warehouse.fragments(name, layer, shard)
            write_fragments(warehouse.layer_table(name, layer), record, table, unit, norms, "these tests")
    for layer in layers:
        records = [warehouse.fragments(name, layer, shard) for shard in range(2)]
        commit_fragments(warehouse.layer_table(name, layer), records, "made for these tests")
    IndexShape(parts=2, layers=list(layers), language_model="model", corpus="text").write(
        warehouse.shape("index", name)
    )


def stage_words(warehouse: Warehouse, about: About = ABOUT, **options: Any) -> ReleaseManifest:
    """Stage a release of the index `words`."""
    index = ReleasedIndex("words", "text", INDEX, "index/words/language_model")
    return stage_index(warehouse, about, index, **options)
