"""Reading the indexes of the reference library (`latentlens` on PyPI), and writing them as ours.

Such an index is a folder `layer_N/embeddings_cache.pt` per contextual layer: a pickle of unit vectors and, per row,
token, token id, position and sentence. It is read without running any code that it holds, a layer at a time.

Note: it names neither its model, nor the lengths of the states, nor the characters of a token. So `norm` is the length
of the stored vector, `position` counts as the reference does (a beginning-of-sequence token is position 0), and a
word's place is given only where it is certain: where the token, or its run of neighboring tokens, stands in the
sentence once.
"""

from __future__ import annotations

import json
import pickle
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa

from latentlens_dag.errors import UserError
from latentlens_dag.hub.names import REPO_ID
from latentlens_dag.index import pickle_child
from latentlens_dag.index.encode import LayerVectors, Progress, allocate_vectors
from latentlens_dag.index.folder import new_index
from latentlens_dag.index.layer_tables import commit_fragments, write_fragments
from latentlens_dag.inputs.texts import MAX_CHARACTERS, write_texts
from latentlens_dag.schema import OCCURRENCES
from latentlens_dag.storage.hashing import hash_values, text_id
from latentlens_dag.storage.parquet import write_parquet
from latentlens_dag.storage.shapes import IndexShape
from latentlens_dag.storage.warehouse import IndexPaths
from latentlens_dag.text.words import token_words, word_span

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

_FILE = "embeddings_cache.pt"
_FIELDS: Mapping[str, type] = {"token_str": str, "token_id": int, "caption": str, "position": int}
_ROWS = 4096  # that are normalized at once
_MOST_WIDTH = 1 << 17
"""Numbers of a vector; of the widest models, a sixth."""
_MOST_LAYER = 10_000
_MOST_SEARCHED = 1_000_000
"""Characters of a sentence times tokens of it up to which the tokens' places are looked for; a sentence of five hundred
tokens is a match for it."""


@dataclass(frozen=True)
class ImportSummary:
    """The size of an imported index."""

    layers: list[int]
    width: int
    rows: int
    """Occurrences."""
    placed: int
    """Occurrences whose word has a certain place in the sentence."""
    repeated: int
    """Rows that were left out, since an earlier row of their layer is of the same token of the same sentence."""


class _Row(NamedTuple):
    token_str: str
    token_id: int
    caption: str
    position: int


class _Layer(NamedTuple):
    embeddings: Tensor  # [N, d], a memory map
    rows: list[_Row]


def import_index(
    source: str, output: Path, revision: str | None = None, progress: Progress = lambda done, total: None
) -> ImportSummary:
    """Write an index of the reference library as a folder that `ContextualIndex.open` reads.

    Args:
        source: its folder, or the Hub id of a repository that holds it.
        output: the new folder; an index that stands alone there is replaced.
        revision: of the repository: a commit, branch or tag.
        progress: called with (layers done, layers).

    Raises:
        UserError: where there is no such index, a file is damaged, packed, or holds code, a matrix is larger than its
            file, a sentence is longer than MAX_CHARACTERS, a field is missing or of a wrong type, numbers do not fit
            together, or `output` cannot be written.

    Memory holds the rows of a layer without their vectors, and all occurrences; the disk of `output` must have room
    for one layer more than the index.
    """
    folder, name = _found(source, revision)
    files = _layer_files(folder)
    encoder = f"imported {hash_values(_checksums(files))}"
    writer = _Writer(encoder)
    with new_index(output, "Name another --output.") as new, tempfile.TemporaryDirectory(dir=new.root) as work:
        for done, (layer, file) in enumerate(files.items()):
            writer.write(layer, file, new, Path(work))
            progress(done + 1, len(files))
        write_texts(writer.captions, new.own_sentences, f"{folder} holds no rows.")
        occurrences = writer.occurrences(name)
        write_parquet(occurrences, new.occurrences(0), OCCURRENCES)
        source = f"{name}@{folder.name}" if "/" in name else name  # the folder of a repository is named by its commit
        shape = IndexShape(parts=1, layers=list(files), language_model=name, rows=writer.rows, source=source)
        shape.write(new.shape)
    placed = len(occurrences) - occurrences["char_start"].null_count
    return ImportSummary(list(files), writer.width, len(occurrences), placed, writer.repeated)


def download(repo_id: str, revision: str | None) -> Path:
    """The folder of a Hub repository's index, in the Hub's cache.

    Raises:
        UserError: where there is no such repository, or it cannot be reached.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    try:
        found = snapshot_download(repo_id, revision=revision, allow_patterns=[f"layer_*/{_FILE}", "metadata.json"])
    except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        raise UserError(
            f"{repo_id} cannot be had from the Hugging Face Hub: {' '.join(str(error).split())[:300]}. Is the name "
            "right, the network there, and, for a private repository, HF_TOKEN set?"
        ) from error
    return Path(found)


class _Writer:
    """Writes layer after layer, and collects the occurrences of all."""

    def __init__(self, encoder: str) -> None:
        self.encoder = encoder
        self.width = 0
        self.rows: dict[int, int] = {}
        self.repeated = 0
        self.captions: dict[str, None] = {}
        self._known: set[str] = set()
        self._tables: list[pa.Table] = []

    def write(self, layer: int, file: Path, new: IndexPaths, work: Path) -> None:
        """Read the layer's file and write its table."""
        read = _read_layer(file)
        self._check_width(file, read.embeddings.shape[1])
        keys = np.array([_key(row) for row in read.rows])
        order = np.unique(keys, return_index=True)[1]  # in order of key; of equal keys the first
        self.repeated += len(keys) - len(order)
        self.rows[layer] = len(order)
        table = _occurrences([read.rows[row] for row in order], keys[order].tolist())
        self._remember(table, [read.rows[row].caption.strip() for row in order])
        record = work / "fragments.json"
        with tempfile.TemporaryDirectory(dir=work) as scratch:
            encoded = _unit(read.embeddings, order, file, Path(scratch))
            write_fragments(new.layer_table(layer), record, table, *encoded, self.encoder)
            del encoded
        # Sinks stay neighbors, as in the reference.
        commit_fragments(new.layer_table(layer), [record], "latentlens-dag import-index", "include")

    def occurrences(self, index: str) -> pa.Table:
        """The occurrences of all layers (OCCURRENCES), in order of key."""
        found = pa.concat_tables(self._tables).sort_by("key")
        return found.append_column("index", pa.array([index] * len(found))).select(OCCURRENCES.names).cast(OCCURRENCES)

    def _check_width(self, file: Path, width: int) -> None:
        if self.width and width != self.width:
            raise UserError(
                f"{file} has vectors of width {width}, the layers before it of width {self.width}: are they of one "
                "model?"
            )
        self.width = width

    def _remember(self, table: pa.Table, captions: Sequence[str]) -> None:
        new = [key not in self._known for key in table["key"].to_pylist()]
        self._tables.append(table.filter(pa.array(new, pa.bool_())))
        self._known.update(self._tables[-1]["key"].to_pylist())
        self.captions.update(dict.fromkeys(captions))


def _found(source: str, revision: str | None) -> tuple[Path, str]:
    """The folder of an index, and its name."""
    folder = Path(source)
    if folder.is_dir():
        if revision is not None:
            raise UserError(f"`--revision {revision}` is of a Hub repository, but {source} is a folder: leave it out.")
        return folder, folder.resolve().name
    if folder.exists() or not REPO_ID.fullmatch(source):
        raise UserError(
            f"{source} is neither a folder nor a Hub id (user/name). Give the folder that holds layer_N/{_FILE}."
        )
    return download(source, revision), source


def _layer_files(folder: Path) -> dict[int, Path]:
    """The file of each layer, ascending."""
    found: dict[int, Path] = {}
    for path in sorted(folder.glob("layer_*")):
        number = path.name.removeprefix("layer_")
        if not path.is_dir() or not (number.isascii() and number.isdecimal()):
            continue
        if len(number) > 5 or int(number) > _MOST_LAYER:
            raise UserError(f"{path} is no layer that a model has: at most {_MOST_LAYER:,}. Rename or remove it.")
        if not (path / _FILE).is_file() or int(number) in found:
            raise UserError(f"{path} has no {_FILE}, or its layer is there twice: is the download whole?")
        found[int(number)] = path / _FILE
    if not found:
        raise UserError(f"{folder} is no index of the reference library: it has no layer_N/{_FILE}.")
    lacking = [layer for layer in _promised(folder / "metadata.json") if layer not in found]
    if lacking:
        raise UserError(
            f"{folder / 'metadata.json'} lists layer {lacking[0]}, but layer_{lacking[0]}/{_FILE} is missing: is the "
            "download whole?"
        )
    return dict(sorted(found.items()))


def _promised(path: Path) -> list[int]:
    if not path.is_file():
        return []
    try:
        layers = json.loads(path.read_text(encoding="utf-8")).get("layers", [])
        return [int(layer) for layer in layers]
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError, OSError) as error:
        raise UserError(f"{path} is damaged ({error!s:.200}). Download it again, or delete it.") from error


def _checksums(files: Mapping[int, Path]) -> Iterator[str]:
    """What tells this index's vectors from others': the checksums that the files' own directories have."""
    for layer, file in files.items():
        parts = [f"{m.filename.split('/', 1)[-1]} {m.CRC:x} {m.file_size}" for m in _members(file)]
        yield f"{layer} {' '.join(sorted(part for part in parts if 'serialization_id' not in part))}"


def _members(file: Path) -> list[zipfile.ZipInfo]:
    """What the file's own directory lists. Nothing in it may be packed: a kilobyte could then become a gigabyte."""
    try:
        with zipfile.ZipFile(file) as members:
            found = members.infolist()
    except Exception as error:  # any: zipfile meets bytes of any kind
        raise _unreadable(file, str(error)) from error
    size = file.stat().st_size
    if any(m.compress_type != zipfile.ZIP_STORED for m in found) or sum(m.file_size for m in found) > size:
        raise UserError(
            f"{file} was not read: what is in it is compressed, or its parts together are larger than its {size:,} "
            "bytes, and `torch.save` writes no such file. Load it where it was made and save it with `torch.save`."
        )
    return found


def _read_layer(file: Path) -> _Layer:
    _check_bytes(file)
    found = _load(file)
    if not isinstance(found, dict) or not {"embeddings", "metadata"} <= found.keys():
        holds = ", ".join(map(repr, found)) if isinstance(found, dict) else type(found).__name__
        raise UserError(f"{file} is no layer of an index: it must hold `embeddings` and `metadata`, and holds {holds}.")
    embeddings, metadata = found["embeddings"], found["metadata"]
    _check_matrix(embeddings, file)
    if not isinstance(metadata, list) or len(metadata) != len(embeddings):
        has = len(metadata) if isinstance(metadata, list) else type(metadata).__name__
        raise UserError(f"{file} has {len(embeddings)} vectors, but {has} rows of metadata: it is damaged.")
    if not metadata:
        raise UserError(f"{file} holds no rows.")
    return _Layer(embeddings, [_checked_row(row, number, file) for number, row in enumerate(metadata)])


def _check_bytes(file: Path) -> None:
    """Refuse a file with other bytes than its own checksums tell; torch maps it without asking them."""
    try:
        with zipfile.ZipFile(file) as members:
            damaged = members.testzip()
    except Exception as error:  # any: zipfile meets bytes of any kind
        raise _unreadable(file, str(error)) from error
    if damaged is not None:
        raise _unreadable(file, f"the checksum of {damaged!r:.80} is another one")


def _load(file: Path) -> object:
    """The content of the file. Only tensors and plain values are made; nothing that it names is run."""
    import torch

    _try_pickle(file)
    try:
        return torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        names = re.findall(r"GLOBAL (\S{1,300}) ", str(error)[:10_000])
        raise _holds_code(file, names) from error
    except Exception as error:  # any: the unpickler meets instructions of any kind
        raise _unreadable(file, f"{type(error).__name__}: {error}") from error


def _try_pickle(file: Path) -> None:
    """Read the pickle in a process of its own first: torch survives neither every depth nor every length."""
    command = [sys.executable, "-I", pickle_child.__file__, str(file.absolute())]
    run = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    try:
        found = json.loads(run.stdout)
    except ValueError:
        how = f"exit code {run.returncode}"
        raise _unreadable(file, f"the process that tried to read it ended, {how}: it takes too much") from None
    if found["names"]:
        raise _holds_code(file, found["names"])
    if found["wrong"]:
        raise _unreadable(file, found["wrong"])


def _holds_code(file: Path, names: Sequence[str]) -> UserError:
    what = ", ".join(sorted(set(names))) or "something else than tensors and plain values"
    return UserError(
        f"{file} was not read: it holds {what}, which only runs as code. An index needs tensors and plain values "
        "alone. Do not load it elsewhere unless you trust its author; ask for, or save, an index of plain values "
        "(`ContextualIndex.save` of the reference library does)."
    )


def _unreadable(file: Path, why: str) -> UserError:
    reason = " ".join(why.split())[:150] or "?"
    return UserError(
        f"{file} is no file of `torch.save`, or is damaged ({reason}). Download or save it again; a file of a torch "
        "before 1.6 must be loaded and saved with a newer one."
    )


def _check_matrix(embeddings: object, file: Path) -> None:
    import torch

    plain = type(embeddings) is torch.Tensor and not embeddings.is_nested and embeddings.layout == torch.strided
    plain = plain and embeddings.is_floating_point()  # type: ignore[attr-defined]
    if not plain or embeddings.ndim != 2 or not embeddings.shape[1]:  # type: ignore[attr-defined]
        what = type(embeddings).__name__
        if isinstance(embeddings, torch.Tensor):
            what = "a nested tensor" if embeddings.is_nested else f"a tensor {tuple(embeddings.shape)}"
        raise UserError(f"{file}: `embeddings` must be a matrix of floating numbers, and is {what}.")
    assert isinstance(embeddings, torch.Tensor)
    _check_size(embeddings, file)


def _check_size(embeddings: Tensor, file: Path) -> None:
    """Refuse a matrix that has no values, or has them more than once (a stride of 0), before its rows are read."""
    rows, width = embeddings.shape
    if width > _MOST_WIDTH:
        raise UserError(f"{file}: its vectors are {width:,} numbers wide, and {_MOST_WIDTH:,} are the most.")
    held = 0 if embeddings.device.type != "cpu" else embeddings.untyped_storage().nbytes()
    storages = [member.file_size for member in _members(file) if member.filename.split("/")[-2:-1] == ["data"]]
    if rows * width * embeddings.element_size() > min(held, max(storages, default=0)):
        raise UserError(
            f"{file}: `embeddings` has {rows:,} x {width:,} numbers, but the file does not hold as many: it repeats "
            "one (a view of `expand`), or is damaged. Save it with `embeddings.contiguous()`."
        )


def _checked_row(row: Any, number: int, file: Path) -> _Row:
    for name, kind in _FIELDS.items():
        value = row.get(name) if isinstance(row, dict) else None
        if not isinstance(value, kind) or isinstance(value, bool):
            raise UserError(f"{file}, row {number}: `{name}` is {value!r:.80}, and must be of type {kind.__name__}.")
        if isinstance(value, str) and not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
            raise UserError(f"{file}, row {number}: `{name}` holds half a character (a surrogate): it is damaged.")
    found = _Row(*(row[name] for name in _FIELDS))
    if not (0 <= found.token_id < 2**31 and 0 <= found.position < 2**31 and found.caption.strip()):
        raise UserError(f"{file}, row {number}: token id, position and sentence are {found[1:]!r:.120}: it is damaged.")
    if max(len(found.caption), len(found.token_str)) > MAX_CHARACTERS:
        raise UserError(
            f"{file}, row {number}: the sentence or token has {max(len(found.caption), len(found.token_str)):,} "
            f"characters, and {MAX_CHARACTERS:,} are the most: it is damaged."
        )
    return found


def _key(row: _Row) -> str:
    return hash_values([row.caption, row.position, row.token_id])


def _unit(embeddings: Tensor, order: NDArray[np.int64], file: Path, scratch: Path) -> LayerVectors:
    """The vectors in the given order, of unit length, on disk."""
    import torch

    found = allocate_vectors(scratch / "vectors.f16", (len(order), embeddings.shape[1]))
    for start in range(0, len(order), _ROWS):
        rows = order[start : start + _ROWS]
        vectors = embeddings.detach()[torch.from_numpy(rows)].float()
        norms = vectors.norm(dim=1)
        bad = torch.nonzero(~(torch.isfinite(norms) & (norms > 0))).flatten().tolist()
        if bad:
            raise UserError(
                f"{file}, row {rows[bad[0]]}: the vector is zero, infinite or NaN, so it has no direction. The file is "
                "damaged, or the model's numbers overflowed when it was made."
            )
        found.vectors[start : start + len(rows)] = (vectors / norms[:, None]).numpy().astype(np.float16)
        found.norms[start : start + len(rows)] = norms.numpy()
    return found


def _occurrences(rows: list[_Row], keys: list[str]) -> pa.Table:
    """The rows as occurrences, without the index's name."""
    words, starts, ends = zip(*_places(rows), strict=True)
    columns = {
        "key": keys,
        "token_id": pa.array([row.token_id for row in rows], pa.int32()),
        "token_str": [row.token_str for row in rows],
        "word": words,
        "char_start": pa.array(starts, pa.int32()),
        "char_end": pa.array(ends, pa.int32()),
        "position": pa.array([row.position for row in rows], pa.int32()),
        "sentence_id": [text_id(row.caption.strip()) for row in rows],
    }
    return pa.table(columns)


_Place = tuple[str, int | None, int | None]


def _places(rows: list[_Row]) -> list[_Place]:
    """The word of each row and where it stands in the sentence; where that is not certain, the place is None.

    Where not even the word is certain, it is the token's own text.
    """
    found: list[_Place] = [("", None, None)] * len(rows)
    order = sorted(range(len(rows)), key=lambda number: (rows[number].caption, rows[number].position))
    for caption, group in groupby(order, key=lambda number: rows[number].caption):
        numbers = list(group)
        if len(caption) * len(numbers) > _MOST_SEARCHED:  # each token would be looked for at each place
            for number in numbers:
                found[number] = rows[number].token_str.strip(), None, None
            continue
        for run in _runs(numbers, rows):
            for number, place in zip(run, _run_places(caption.strip(), [rows[n].token_str for n in run]), strict=True):
                found[number] = place
    return found


def _runs(numbers: list[int], rows: list[_Row]) -> Iterator[list[int]]:
    """Rows of one sentence, in order of position, cut where a position is missing."""
    run: list[int] = []
    for number in numbers:
        if run and rows[number].position != rows[run[-1]].position + 1:
            yield run
            run = []
        run.append(number)
    yield run


def _run_places(text: str, tokens: list[str]) -> list[_Place]:
    """The words of neighboring tokens. Together they often stand once where one of them stands twice."""
    whole = [found for start in _starts(text, tokens[0]) if (found := _aligned(text, start, tokens))]
    if len(whole) != 1:
        return [_token_place(text, token) for token in tokens]
    return [*token_words(text, whole[0])]


def _aligned(text: str, start: int, tokens: list[str]) -> list[tuple[int, int]] | None:
    """Where the tokens stand if the first begins at `start`; None where they do not follow one another there.

    One blank may lie between two tokens: tokenizers of the SentencePiece family write a token without its own.
    """
    spans = []
    for token in tokens:
        if not f" {text}".startswith(token, start + 1):
            start += 1
            if not text.startswith(f" {token}", start - 1):
                return None
        spans.append((max(start, 0), max(start + len(token), 0)))
        start += len(token)
    return spans


def _token_place(text: str, token: str) -> _Place:
    """The word of a token by itself: with its place where the token stands once; without, where all places say it."""
    if not token.strip():
        return "", None, None
    spans = [word_span(text, max(start, 0), start + len(token)) for start in _starts(text, token)]
    words = {text[start:end] for start, end in spans}
    if len(spans) == 1:
        return text[spans[0][0] : spans[0][1]], *spans[0]
    return (words.pop() if len(words) == 1 else token.strip()), None, None


def _starts(text: str, part: str) -> Iterator[int]:
    """Where the part stands in the text, overlaps too; -1 where it begins with a blank that the text has not."""
    padded = f" {text}"  # a first token may be written with a blank before it
    place = padded.find(part)
    while place >= 0 and part:
        yield place - 1
        place = padded.find(part, place + 1)
