"""A study of the paper's size, of random answers, and its release: what the browser's benchmark reads.

300 images of 24 x 24 patches, 9 visual layers, 3 lenses and 5 answers: 23.3 million rows of `neighbors`. Words are
drawn by Zipf's law out of 10,000; every image has objects, and a third of the answers name the object that is there, so
that words, verdicts and pictures hang together as in a real study. What a newcomer gets wrong: nothing is written to
look like a release. The warehouse is written as steps write it, and judged, summed up, catalogued and staged by the
package.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from latentlens_dag.dataset.study_catalog import write_catalog
from latentlens_dag.inputs.regions import encode_mask
from latentlens_dag.publish.about import About
from latentlens_dag.publish.stage_results import ReleasedStudy, stage_tables
from latentlens_dag.schema import DECLARED_LENSES, IMAGES, LATENTLENS, NEIGHBORS, OCCURRENCES, REGIONS, SENTENCES
from latentlens_dag.storage.hashing import hash_bytes, text_id
from latentlens_dag.storage.parquet import write_parquet
from latentlens_dag.storage.shapes import IndexShape
from latentlens_dag.storage.warehouse import Warehouse
from latentlens_dag.study.answer_statistics import diversity, layer_alignment
from latentlens_dag.study.interpretability import interpretability
from latentlens_dag.study.regions_judge import judge_regions
from tests.helpers.patch_truths import truth_of

STUDY, CORPUS, INDEX, PICTURES, RELEASE = "large", "phrases", "phrases_index", "photos", "large"
VISUAL_LAYERS = (0, 1, 2, 4, 8, 16, 24, 30, 31)
CONTEXTUAL_LAYERS = (1, 2, 4, 8, 16, 24, 30, 31)
WORDS, SENTENCE_WORDS, CONTEXTS, TOP_K = 10_000, 7, 50, 5
GRID, WIDTH, HEIGHT, BATCHES, OBJECTS = 24, 640, 480, 4, 5
NAMED = 0.35  # of the answers name what is there

Ints = npt.NDArray[np.int64]


def written(folder: Path, images: int = 300, sentences: int = 117_125) -> Path:
    """The folder of the release of such a study, written into `folder` unless it is there; the home is `folder` itself.

    The authors' library comes with 117,125 sentences.
    """
    warehouse = Warehouse(folder / "warehouse")
    release = warehouse.release(RELEASE)
    if not (release / "manifest.json").is_file():
        corpus = Corpus.drawn(sentences)
        _write_corpus(warehouse, corpus)
        _write_study(warehouse, corpus, images)
        write_catalog(warehouse, STUDY, warehouse.catalog(STUDY))
        studies = [ReleasedStudy(STUDY, CORPUS, INDEX, _DECLARED, f"study/{STUDY}/vlm")]
        stage_tables(warehouse, _ABOUT, studies, thumbnails=True)
    return release


@dataclass(frozen=True)
class Corpus:
    """Sentences of words that are numbers, and where each word stands."""

    vocabulary: npt.NDArray[Any]
    """The words, most frequent first."""
    words: Ints
    """[sentences, SENTENCE_WORDS], numbers of words."""
    texts: list[str]
    ids: list[str]

    @classmethod
    def drawn(cls, count: int) -> Corpus:
        """Sentences of words by Zipf's law."""
        vocabulary = np.array([spelled(number) for number in range(WORDS)])
        drawn = zipf(np.random.default_rng(1), (count, SENTENCE_WORDS))
        texts = [" ".join(row) for row in vocabulary[drawn]]
        kept = list({text: number for number, text in enumerate(texts)}.values())
        texts = [texts[number] for number in kept]
        return cls(vocabulary, drawn[kept], texts, [text_id(text) for text in texts])

    @cached_property
    def occurrences(self) -> tuple[Ints, Ints, Ints]:
        """The places that the index keeps, by word: their numbers, and of each word the first and the count.

        A place is a number of `words.ravel()`; of every word the first CONTEXTS are kept.
        """
        flat = self.words.ravel()
        order = np.argsort(flat, kind="stable")
        first = np.searchsorted(flat[order], np.arange(WORDS))
        rank = np.arange(len(flat)) - first[flat[order]]
        places = order[rank < CONTEXTS]
        counts = np.bincount(flat[places], minlength=WORDS)
        return places, np.cumsum(counts) - counts, counts

    @cached_property
    def columns(self) -> dict[str, pa.Array]:
        """What OCCURRENCES says of each kept place."""
        places = self.occurrences[0]
        sentence, position = places // SENTENCE_WORDS, places % SENTENCE_WORDS
        lengths = np.char.str_len(self.vocabulary)[self.words]
        starts = (np.cumsum(lengths + 1, axis=1) - lengths - 1)[sentence, position]
        ends = starts + lengths[sentence, position]
        keys = [hash_bytes(self.texts[s][:end].encode()) for s, end in zip(sentence, ends, strict=True)]
        numbers = {"position": position, "char_start": starts, "char_end": ends}
        ids = pa.array(self.ids).take(pa.array(sentence))
        return {"key": pa.array(keys), "sentence_id": ids, **{n: pa.array(v, pa.int32()) for n, v in numbers.items()}}


def spelled(number: int) -> str:
    """A word that can be read out loud, another one for every number."""
    syllables = [consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in "aeiou"]
    word = syllables[number % 70] + syllables[number // 70 % 70]
    return word if number < 4900 else word + syllables[number // 4900]


def zipf(random: np.random.Generator, shape: tuple[int, ...]) -> Ints:
    """Numbers of words by Zipf's law."""
    shares = 1 / np.arange(1, WORDS + 1)
    return np.searchsorted(np.cumsum(shares / shares.sum()), random.random(shape)).astype(np.int64).clip(0, WORDS - 1)


def _write_corpus(warehouse: Warehouse, corpus: Corpus) -> None:
    table = pa.table([corpus.ids, corpus.texts], schema=SENTENCES)
    write_parquet(table.sort_by("sentence_id"), warehouse.sentences(CORPUS))
    places = corpus.occurrences[0]
    numbers = corpus.words.ravel()[places]
    word = pa.array(corpus.vocabulary).take(pa.array(numbers))
    own = {"index": pa.array([INDEX] * len(places)), "token_id": pa.array(numbers, pa.int32()), "token_str": word}
    found = pa.table({**own, "word": word, **corpus.columns}).select(OCCURRENCES.names).sort_by("key")
    write_parquet(found, warehouse.occurrences(INDEX, 0), OCCURRENCES)
    shape = IndexShape(parts=1, layers=list(CONTEXTUAL_LAYERS), language_model="random", corpus=CORPUS)
    shape.write(warehouse.shape("index", INDEX))


def _write_study(warehouse: Warehouse, corpus: Corpus, images: int) -> None:
    """All tables of the study, batch by batch and layer by layer, and its summaries out of the written files."""
    batches = [[n for n in range(images) if n % BATCHES == batch] for batch in range(BATCHES)]
    for number, batch in enumerate(batches):
        shown = [Photo.drawn(one, corpus) for one in batch]
        pictures = pa.Table.from_pylist([photo.row() for photo in shown], schema=IMAGES)
        regions = pa.Table.from_pylist([row for photo in shown for row in photo.regions(corpus)], schema=REGIONS)
        tokens = _visual_tokens([photo.image_id for photo in shown])
        write_parquet(pictures, warehouse.pictures(PICTURES, number), IMAGES)
        write_parquet(regions, warehouse.regions(PICTURES, number), REGIONS)
        write_parquet(tokens, warehouse.visual_tokens(STUDY, number))
        truth = truth_of(regions, tokens, pictures)
        for layer in VISUAL_LAYERS:
            answers = [_neighbors(corpus, shown, lens, layer) for lens in DECLARED_LENSES]
            for lens, table in zip(DECLARED_LENSES, answers, strict=True):
                write_parquet(table, warehouse.neighbors(STUDY, lens, layer, number), NEIGHBORS)
            write_parquet(judge_regions(pa.concat_tables(answers), truth), warehouse.judgements(STUDY, layer, number))
    study = warehouse.study(STUDY)
    for name, made in (
        ("layer_alignment", layer_alignment(_files(study, "latentlens/*/*.parquet"))),
        ("diversity", diversity(_files(study, "*lens/*/*.parquet"))),
        ("interpretability", interpretability(_files(study, "judgements/*/*.parquet"), TOP_K)),
    ):
        write_parquet(made, warehouse.summary(STUDY, name))


def _files(study: Path, pattern: str) -> Iterator[pa.Table]:
    import pyarrow.parquet as pq

    return (pq.read_table(path) for path in sorted(study.glob(pattern)))


@dataclass(frozen=True)
class Photo:
    """An image of some ellipses, each of one word."""

    number: int
    masks: npt.NDArray[np.bool_]
    """[objects, HEIGHT, WIDTH]."""
    words: Ints
    """[objects + 1]: of each object, and of the ground last."""

    @property
    def image_id(self) -> str:
        """Of its number: a picture's bytes differ from one version of Pillow to the next."""
        return hash_bytes(f"photo {self.number}".encode())

    @classmethod
    def drawn(cls, number: int, corpus: Corpus) -> Photo:
        """Ellipses at random, and words that stand in the corpus."""
        random = np.random.default_rng((2, number))
        y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
        centers, radii = random.random((OBJECTS, 2)), random.uniform(0.08, 0.25, (OBJECTS, 2))
        masks = [
            ((x / WIDTH - cx) / rx) ** 2 + ((y / HEIGHT - cy) / ry) ** 2 < 1
            for (cx, cy), (rx, ry) in zip(centers, radii, strict=True)
        ]
        known = np.flatnonzero(corpus.occurrences[2])
        return cls(number, np.stack(masks), random.choice(known[:2000], OBJECTS + 1, replace=False))

    def row(self) -> dict[str, Any]:
        """The row of IMAGES."""
        name = f"photo_{self.number:03d}.jpg"
        values = (self.image_id, name, WIDTH, HEIGHT, self._thumbnail())
        return dict(zip(IMAGES.names, values, strict=True))

    def _thumbnail(self) -> bytes:
        """The ellipses in colors, with the noise of a camera."""
        from PIL import Image

        random = np.random.default_rng((3, self.number))
        colors = random.integers(40, 220, (OBJECTS + 1, 3))
        pixels = colors[self.shown()] + random.normal(0, 14, (HEIGHT, WIDTH, 3))
        picture = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
        picture.thumbnail((256, 256))
        buffer = io.BytesIO()
        picture.save(buffer, "WEBP", quality=80)
        return buffer.getvalue()

    def shown(self) -> Ints:
        """[HEIGHT, WIDTH]: the number of the object in front; OBJECTS is the ground."""
        return np.where(self.masks.any(0), self.masks.argmax(0), OBJECTS)

    def topics(self) -> Ints:
        """[patches]: the word of what is in the middle of each patch."""
        rows, columns = (((np.arange(GRID) + 0.5) * side / GRID).astype(int) for side in (HEIGHT, WIDTH))
        topics: Ints = self.words[self.shown()[np.ix_(rows, columns)]].ravel()
        return topics

    def regions(self, corpus: Corpus) -> Iterator[dict[str, Any]]:
        """The rows of REGIONS: every object, and the ground."""
        for number, word in enumerate(corpus.vocabulary[self.words]):
            ground = number == OBJECTS
            mask = ~self.masks.any(0) if ground else self.masks[number]
            ys, xs = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            box = dict(zip(("x0", "y0", "x1", "y1"), (xs[0], ys[0], xs[-1] + 1, ys[-1] + 1), strict=True))
            what = {"kind": "background" if ground else "object", "name": word, "words": [word], "abstract_words": []}
            yield {"image_id": self.image_id, "region_id": str(number), **what, **box, "mask": encode_mask(mask)}


def _visual_tokens(image_ids: list[str]) -> pa.Table:
    from latentlens_dag.schema import VISUAL_TOKENS

    row, col = (np.tile(part.ravel(), len(image_ids)) for part in np.mgrid[0:GRID, 0:GRID])
    across, down = WIDTH / GRID, HEIGHT / GRID
    sides = (col * across, row * down, (col + 1) * across, (row + 1) * down)
    count = len(row)
    names, ids = [STUDY] * count, pa.array(image_ids).take(pa.array(np.repeat(np.arange(len(image_ids)), GRID**2)))
    whole = ["global"] * count, np.zeros(count, np.int32)
    values = (names, ids, row * GRID + col, *whole, row, col, *sides)
    arrays = [pa.array(value, field.type) for value, field in zip(values, VISUAL_TOKENS, strict=True)]
    return pa.table(arrays, schema=VISUAL_TOKENS)


def _neighbors(corpus: Corpus, photos: list[Photo], lens: str, layer: int) -> pa.Table:
    """The answers of one lens at one layer."""
    random = np.random.default_rng((4, photos[0].number, layer, list(DECLARED_LENSES).index(lens)))
    shape = (len(photos), GRID**2, TOP_K)
    topics = np.stack([photo.topics() for photo in photos])[..., None]
    words = np.where(random.random(shape) < NAMED, topics, zipf(random, shape)).ravel()
    words = np.where(corpus.occurrences[2][words] > 0, words, 0)  # every answer stands in the corpus
    count = len(words)
    image, token, rank = (index.ravel() for index in np.indices(shape))
    best = np.repeat(random.uniform(0.3, 0.8, shape[0] * shape[1]), TOP_K)
    likeness = pa.array(best - 0.02 * rank, pa.float32())
    none, word = pa.nulls(count), pa.array(corpus.vocabulary).take(pa.array(words))
    columns: dict[str, Any] = dict.fromkeys(NEIGHBORS.names, none)
    columns |= {"study": [STUDY] * count, "lens": [lens] * count, "visual_layer": np.full(count, layer)}
    columns |= {"image_id": pa.array([photo.image_id for photo in photos]).take(pa.array(image)), "token_index": token}
    columns |= {"rank": rank + 1, "token_id": words, "token_str": word, "word": word}
    columns[DECLARED_LENSES[lens].score] = likeness
    if lens == LATENTLENS:
        columns |= _occurrences(corpus, words, layer, random)
    arrays = [pa.array(columns[field.name]).cast(field.type) for field in NEIGHBORS]
    return pa.table(arrays, schema=NEIGHBORS)


def _occurrences(corpus: Corpus, words: Ints, layer: int, random: np.random.Generator) -> dict[str, Any]:
    """Where LatentLens's answers stand: any kept place of the word, at contextual layers near the visual one."""
    _, first, counts = corpus.occurrences
    places = first[words] + (random.random(len(words)) * counts[words]).astype(np.int64)
    kept = pa.array(places)
    near = np.exp(-np.abs(np.array(CONTEXTUAL_LAYERS) - (layer + 8)) / 6)
    layers = random.choice(CONTEXTUAL_LAYERS, len(words), p=near / near.sum())
    return {"contextual_layer": layers, **{name: column.take(kept) for name, column in corpus.columns.items()}}


_ABOUT = About(RELEASE, "user/large", "A study of the paper's size", "apache-2.0", "made for this", "made for this")
_DECLARED: dict[str, Any] = {
    "kind": "images",
    "model": {"name": "random", "revision": None},
    "prompt": "",
    "visual_layers": list(VISUAL_LAYERS),
    "lenses": list(DECLARED_LENSES),
    "top_k": TOP_K,
    "unique": "none",
    "judge": "regions",
    "images": {"name": PICTURES, "source": "drawn"},
    "index": {
        "name": INDEX,
        "corpus": CORPUS,
        "contexts_per_token": CONTEXTS,
        "sampling": "first",
        "fraction": 1.0,
        "min_position": 0,
        "dedup": "prefix",
        "model": {"name": "random", "revision": None},
        "contextual_layers": list(CONTEXTUAL_LAYERS),
        "source": "drawn",
    },
}
