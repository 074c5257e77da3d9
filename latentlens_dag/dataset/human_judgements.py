"""Judgements by people: which patches they are shown, and where what they say is kept.

Each person has one file of JSON lines per study, `judging/<study>/<person>.jsonl` in the home, beside the warehouse
that builds manage, for no build could make it again. A judgement is one more line, written whole and flushed to disk;
of several on one item the last counts, so that going back and choosing again is one more line, too.

What a newcomer gets wrong: a judgement is of the answers that were shown. A build may replace them, so every line has
its answers, and `browse/judging.py` leaves out those that are answers no more.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count as numbers
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from latentlens_dag.errors import UserError
from latentlens_dag.storage.hashing import hash_values

if TYPE_CHECKING:
    import polars as pl

FOLDER = "judging"
SKIPPED = "skipped"
Verdict = Literal["concrete", "abstract", "global", "none", "skipped"]
"""As of other judges (`study/regions_judge.py`), the first that holds; `skipped` takes an earlier one back."""
_PERSON = re.compile(r"[\w-]{1,32}")


class Item(NamedTuple):
    """What is judged: the answers of one lens for one visual token at one layer."""

    image_id: str
    token_index: int
    visual_layer: int
    lens: str


class HumanJudgement(BaseModel):
    """One line: what a person said of an item."""

    model_config = ConfigDict(frozen=True)

    study: str
    image_id: str
    token_index: int
    visual_layer: int
    lens: str
    verdict: Verdict
    person: str
    made: str
    """When, in UTC, as ISO 8601 writes it."""
    answers: tuple[str, ...]
    """The words that were shown, nearest first."""
    sentences: bool
    """Whether their sentences were shown, too, from which one may guess the lens."""

    @property
    def item(self) -> Item:
        """What was judged."""
        return Item(self.image_id, self.token_index, self.visual_layer, self.lens)


def person_name(text: str) -> str:
    """The name under which a person's judgements are kept; the same however it is written.

    Raises:
        UserError: where it is no name of a file in the folder.
    """
    name = unicodedata.normalize("NFC", text.strip()).casefold()
    if not _PERSON.fullmatch(name):
        raise UserError(f"{text[:40]!r} cannot be used as a name: give 1 to 32 letters, digits, - or _.")
    return name


class StoredJudgements(NamedTuple):
    """What the files of a study hold."""

    judgements: list[HumanJudgement]
    """Every line, in the order of persons and of time."""
    unreadable: int
    """Lines that are no judgement: a crash cut them short, or a person changed them."""


@dataclass(frozen=True)
class JudgingFolder:
    """The folder `judging/` of a home."""

    root: Path

    def path(self, study: str, person: str) -> Path:
        """JSON lines: what a person said about a study.

        Raises:
            UserError: where a name would lead out of the folder.
        """
        if not study or study.startswith(".") or re.search(r"[/\\\0]", study):
            raise UserError(f"Study {study[:80]!r} has a name that no folder can have: nothing is kept of it.")
        return self.root / study / f"{person_name(person)}.jsonl"

    def append(self, judgement: HumanJudgement) -> None:
        """Write one more line; when this returns it is on disk, whatever others write at the same time.

        Raises:
            UserError: as `path`.
            OSError: where it cannot be written.
        """
        import fcntl  # not on Windows, where datasets can be read all the same

        path = self.path(judgement.study, judgement.person)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            size = file.seek(0, os.SEEK_END)
            cut_short = size > 0 and os.pread(file.fileno(), 1, size - 1) != b"\n"
            file.write(b"\n" * cut_short + judgement.model_dump_json().encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        if not size:
            _sync_folders(path.parent, self.root.parent)

    def files(self) -> list[Path]:
        """Every person's file of every study."""
        return sorted(self.root.glob("*/*.jsonl"))

    def read(self, study: str) -> StoredJudgements:
        """All that people said about a study."""
        judgements: list[HumanJudgement] = []
        unreadable = 0
        for path in sorted(self.path(study, "x").parent.glob("*.jsonl")):
            for line in path.read_bytes().splitlines():
                try:
                    judgements.append(HumanJudgement.model_validate_json(line))
                except ValidationError:
                    unreadable += bool(line)
        return StoredJudgements(judgements, unreadable)

    def problem(self) -> str | None:
        """Why nothing can be kept here; None where it can. Writes nothing."""
        nearest = next(folder for folder in (self.root, *self.root.parents) if folder.exists())
        if not nearest.is_dir():
            return f"{nearest} is no folder"
        return None if os.access(nearest, os.W_OK | os.X_OK) else f"{nearest} cannot be written"


def judging_folder(source: str | Path) -> JudgingFolder | None:
    """Where judgements of a source are kept; None for what is no home: a release, a catalog, a bare warehouse."""
    return JudgingFolder(Path(source) / FOLDER) if (Path(source) / "warehouse").is_dir() else None


def latest_judgements(judgements: Iterable[HumanJudgement]) -> list[HumanJudgement]:
    """The last judgement of each person on each item, without those that were skipped at last."""
    last = {(one.person, one.study, one.item): one for one in judgements}
    return [one for one in last.values() if one.verdict != SKIPPED]


def judgement_table(judgements: Iterable[HumanJudgement]) -> pl.DataFrame:
    """Judgements as a table: a row each, answers as a list."""
    import polars as pl

    schema: dict[str, pl.DataType | type[pl.DataType]] = dict.fromkeys(HumanJudgement.model_fields, pl.String)
    schema |= {"token_index": pl.Int32, "visual_layer": pl.Int32, "answers": pl.List(pl.String)}
    schema |= {"sentences": pl.Boolean}
    return pl.DataFrame([one.model_dump() for one in judgements], schema=schema)


def draw_sample(
    patches: Mapping[str, Sequence[int]], lenses: Sequence[str], visual_layers: Sequence[int], count: int, seed: int
) -> list[Item]:
    """The first `count` items of an order that the seed gives; the same for everyone.

    Lenses and layers take turns, in another order every round, so any beginning of it has equally many of each, but
    for one; in each the images take turns, and their patches follow by chance. What of the patches it begins with
    depends on no other lens or layer.

    Args:
        patches: the tokens of each image that have a place in it.
        lenses: whose answers are judged.
        visual_layers: at which layers.
        count: how many items; fewer come where there are fewer.
        seed: any number.
    """
    strata = [(lens, layer) for lens in lenses for layer in visual_layers]
    orders = {stratum: _patches_in_order(patches, seed, stratum) for stratum in strata}
    return list(islice(_in_turns(orders, seed), count)) if any(patches.values()) else []


def _in_turns(orders: Mapping[tuple[str, int], Iterator[Item]], seed: int) -> Iterator[Item]:
    for turn in numbers():
        drawn = [next(orders[one], None) for one in sorted(orders, key=lambda one: hash_values([seed, turn, *one]))]
        yield from (item for item in drawn if item is not None)
        if not any(drawn):
            return


def _patches_in_order(patches: Mapping[str, Sequence[int]], seed: int, stratum: tuple[str, int]) -> Iterator[Item]:
    """A patch of every image in turn, until there is none left."""
    lens, layer = stratum

    def tokens_of(image: str) -> Iterator[int]:
        left = sorted(patches[image])
        while left:  # one hash for each that is drawn: to order all of them would take a second
            yield left.pop(int(hash_values([seed, *stratum, image, len(left)]), 16) % len(left))

    images = sorted(patches, key=lambda image: hash_values([seed, *stratum, image]))
    waiting = {image: tokens_of(image) for image in images}
    for image in cycle(images):
        if image in waiting:
            token = next(waiting[image], None)
            if token is None:
                del waiting[image]
            else:
                yield Item(image, token, layer, lens)
        if not waiting:
            return


def _sync_folders(folder: Path, top: Path) -> None:
    """Flush the entries of a new file's folders to disk, up to the folder that was there before."""
    for one in (folder, *folder.parents):
        descriptor = os.open(one, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if one == top:
            return
