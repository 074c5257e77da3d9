"""Judgements by people: the sample of patches that they judge, and the files of their judgements.

Each person has one file of JSON lines per study, `judging/<study>/<person>.jsonl` in the home, outside of the
warehouse, since no build could make it again. A judgement appends one line, flushed to disk; of several on one item the
last counts, so a change of mind is one more line.

Note: a judgement is about the answers that were shown. A build may replace these, so every line has its answers, and
`browse/judging.py` leaves out lines with outdated ones.
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
"""As of other judges (`study/regions_judge.py`), the first that holds; `skipped` withdraws an earlier one."""
_PERSON = re.compile(r"[\w-]{1,32}")


class Item(NamedTuple):
    """The answers of one lens for one visual token at one layer."""

    image_id: str
    token_index: int
    visual_layer: int
    lens: str


class HumanJudgement(BaseModel):
    """The judgement of one person on one item; one line of a file."""

    model_config = ConfigDict(frozen=True)

    study: str
    image_id: str
    token_index: int
    visual_layer: int
    lens: str
    verdict: Verdict
    person: str
    made: str
    """Time in UTC, ISO 8601."""
    answers: tuple[str, ...]
    """The words that were shown, nearest first."""
    sentences: bool
    """Whether their sentences were shown too, which may give the lens away."""

    @property
    def item(self) -> Item:
        """The item that was judged."""
        return Item(self.image_id, self.token_index, self.visual_layer, self.lens)


def person_name(text: str) -> str:
    """The file name of a person's judgements, independent of case and Unicode form.

    Raises:
        UserError: if the text cannot be a file name.
    """
    name = unicodedata.normalize("NFC", text.strip()).casefold()
    if not _PERSON.fullmatch(name):
        raise UserError(f"{text[:40]!r} cannot be used as a name: give 1 to 32 letters, digits, - or _.")
    return name


class StoredJudgements(NamedTuple):
    """The judgements in the files of a study."""

    judgements: list[HumanJudgement]
    """Every line, by person and time."""
    unreadable: int
    """Number of lines that are not a judgement: cut short by a crash, or edited."""


@dataclass(frozen=True)
class JudgingFolder:
    """The folder `judging/` of a home."""

    root: Path

    def path(self, study: str, person: str) -> Path:
        """The JSON lines of a person's judgements of a study.

        Raises:
            UserError: if a name would lead out of the folder.
        """
        if not study or study.startswith(".") or re.search(r"[/\\\0]", study):
            raise UserError(
                f"Study {study[:80]!r} has a name that no folder can have: its judgements cannot be stored."
            )
        return self.root / study / f"{person_name(person)}.jsonl"

    def append(self, judgement: HumanJudgement) -> None:
        """Append one line, safe against concurrent writers; when this returns it is on disk.

        Raises:
            UserError: as `path`.
            OSError: if it cannot be written.
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
        """All judgements of a study by people."""
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
        """Why nothing can be stored here; None if it can. Writes nothing."""
        nearest = next(folder for folder in (self.root, *self.root.parents) if folder.exists())
        if not nearest.is_dir():
            return f"{nearest} is no folder"
        return None if os.access(nearest, os.W_OK | os.X_OK) else f"{nearest} cannot be written"


def judging_folder(source: str | Path) -> JudgingFolder | None:
    """The folder of judgements of a home; None for any other source: a release, a catalog, a bare warehouse."""
    return JudgingFolder(Path(source) / FOLDER) if (Path(source) / "warehouse").is_dir() else None


def latest_judgements(judgements: Iterable[HumanJudgement]) -> list[HumanJudgement]:
    """The latest judgement of each person on each item, without skipped ones."""
    last = {(one.person, one.study, one.item): one for one in judgements}
    return [one for one in last.values() if one.verdict != SKIPPED]


def judgement_table(judgements: Iterable[HumanJudgement]) -> pl.DataFrame:
    """Judgements as a table, one row each."""
    import polars as pl

    schema: dict[str, pl.DataType | type[pl.DataType]] = dict.fromkeys(HumanJudgement.model_fields, pl.String)
    schema |= {"token_index": pl.Int32, "visual_layer": pl.Int32, "answers": pl.List(pl.String)}
    schema |= {"sentences": pl.Boolean}
    return pl.DataFrame([one.model_dump() for one in judgements], schema=schema)


def draw_sample(
    patches: Mapping[str, Sequence[int]], lenses: Sequence[str], visual_layers: Sequence[int], count: int, seed: int
) -> list[Item]:
    """The first `count` items in a pseudo-random order that depends on the seed alone, the same for everyone.

    Lenses and layers take turns, in a new order every round, so every prefix has equally many of each, plus or minus
    one. Within a lens and layer the images take turns, and their patches come at random, independently of the other
    lenses and layers.

    Args:
        patches: the tokens of each image that have a box.
        lenses: the lenses whose answers are judged.
        visual_layers: the layers whose answers are judged.
        count: number of items; fewer if there are fewer.
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
    """A patch of every image in turn, until none is left."""
    lens, layer = stratum

    def tokens_of(image: str) -> Iterator[int]:
        left = sorted(patches[image])
        while left:  # one hash per item drawn: ordering all of them would take a second
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
    """Flush the entries of a new file's folders to disk, up to the folder that existed before."""
    for one in (folder, *folder.parents):
        descriptor = os.open(one, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if one == top:
            return
