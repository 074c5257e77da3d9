"""Which of the things that annotated regions name a model's captions name, too.

A thing is the name of a region; a caption names it where the name's words stand in it one after the other, each equal
up to inflection (`text/inflection.py`). Names count once for an image. *Recall* is the share of the things in an image
that its caption names, *precision* the share of the things that a caption names that are in its image. Of precision,
things are all names of the image set: a caption may name others, which nobody counts.

*Chance* is what captions of other images reach: the mean over all of them, which is computed and not drawn.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import polars as pl
import pyarrow as pa

from latentlens_dag.schema import CAPTION_OBJECTS, CAPTION_SCORES
from latentlens_dag.study.intervals import shares
from latentlens_dag.text.inflection import base_forms
from latentlens_dag.text.words import word_spans

RECALL, PRECISION = "recall", "precision"
ALL = "all"
"""The kind of both objects and backgrounds."""


def caption_objects(study: str, captions: Mapping[str, str], regions: Iterable[tuple[str, str, str]]) -> pa.Table:
    """What is in each image or named in its caption (CAPTION_OBJECTS).

    Args:
        study: its name.
        captions: by image.
        regions: image, name and kind of each region of the image set.
    """
    present: dict[str, set[str]] = {}
    kind_of: dict[str, str] = {}
    for image, name, kind in regions:
        present.setdefault(image, set()).add(name)
        kind_of[name] = min(kind, kind_of.get(name, kind), key=lambda one: one != "object")  # a thing, if anywhere
    names, rows = _Names(kind_of), []
    for image in sorted(captions):
        there, named = present.get(image, set()), names.in_text(captions[image])
        for name in sorted(there | named):
            facts = {"present": name in there, "named": name in named}
            rows.append({"study": study, "image_id": image, "name": name, "kind": kind_of[name], **facts})
    return pa.Table.from_pylist(rows, CAPTION_OBJECTS)


def caption_scores(study: str, objects: pa.Table, images: Sequence[str]) -> pa.Table:
    """Recall and precision, with intervals over images, and chance (CAPTION_SCORES).

    Args:
        study: its name.
        objects: of `caption_objects`.
        images: all that have captions.
    """
    table = pl.DataFrame(objects)
    kinds = [ALL, *sorted(table["kind"].unique())]
    rows = [
        row
        for kind in kinds
        for row in _scores(table if kind == ALL else table.filter(kind=kind), images, {"study": study, "kind": kind})
    ]
    return pa.Table.from_pylist(rows, CAPTION_SCORES)


def _scores(table: pl.DataFrame, images: Sequence[str], row: dict[str, object]) -> Iterator[dict[str, object]]:
    for measure, asked, found in ((RECALL, "present", "named"), (PRECISION, "named", "present")):
        of = table.filter(pl.col(asked))
        elsewhere = Counter(table.filter(pl.col(found))["name"].to_list())
        counts = {image: np.zeros(3) for image in images}
        for image, name, hit in of.select("image_id", "name", found).iter_rows():
            # Of the other images, so many have the thing that is asked for.
            by_chance = (elsewhere[name] - hit) / (len(images) - 1) if len(images) > 1 else np.nan
            counts[image] += (1, hit, by_chance)
        asked_of, hits, chance = np.array(list(counts.values())).reshape(-1, 3).T
        reached, expected = shares(hits, asked_of), shares(chance, asked_of)
        figures = (reached.share, reached.low, reached.high, expected.share, expected.low, expected.high)
        names = ("share", "low", "high", "chance", "chance_low", "chance_high")
        yield {
            **row,
            "measure": measure,
            **{name: None if np.isnan(value) else float(value) for name, value in zip(names, figures, strict=True)},
            "images": int((asked_of > 0).sum()),
            "objects": int(asked_of.sum()),
        }


class _Names:
    """Names, found by the forms of their first words: captions are many, and so may names be."""

    def __init__(self, names: Iterable[str]) -> None:
        self._starting: dict[str, list[tuple[str, list[frozenset[str]]]]] = {}
        for name in names:
            words = _forms(name)
            for form in words[0] if words else ():
                self._starting.setdefault(form, []).append((name, words))

    def in_text(self, text: str) -> set[str]:
        """The names whose words stand in a text one after the other."""
        said = _forms(text)
        return {
            name
            for place, forms in enumerate(said)
            for form in forms
            for name, words in self._starting.get(form, ())
            if len(said) - place >= len(words)
            and all(one & other for one, other in zip(words, said[place:], strict=False))
        }


def _forms(text: str) -> list[frozenset[str]]:
    """The base forms of each word."""
    found = (base_forms(text[start:end]) for start, end in word_spans(text))
    return [forms for forms in found if forms]
