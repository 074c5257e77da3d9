"""Building an index that stands alone: sentences in, a folder out.

The steps are those of a warehouse's index (candidates, selection, occurrences, states, layer tables), part by
part, on one machine. A part is a share of the sentences by hash, so the number of parts depends on how many distinct
sentences there are, not on their order.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pyarrow.parquet as pq

from latentlens_dag.errors import UserError
from latentlens_dag.index import approximate
from latentlens_dag.index import occurrences as core
from latentlens_dag.index.encode import Progress, encode_missing
from latentlens_dag.index.folder import new_index
from latentlens_dag.index.layer_tables import commit_fragments, encoder_of, write_fragments
from latentlens_dag.inputs.texts import MAX_CHARACTERS, sentences_by_shard, write_shard, write_texts
from latentlens_dag.models import self_checks
from latentlens_dag.models.fingerprints import SCHEME, fingerprint
from latentlens_dag.models.language_model import LanguageModel
from latentlens_dag.models.layers import as_int_list, auto_contextual_layers, check_layers
from latentlens_dag.models.loading import language_model_of
from latentlens_dag.models.text_checks import causality
from latentlens_dag.models.vlm import Vlm
from latentlens_dag.schema import OCCURRENCES
from latentlens_dag.storage.hashing import hash_values
from latentlens_dag.storage.package_versions import provenance_json
from latentlens_dag.storage.parquet import write_parquet
from latentlens_dag.storage.shapes import IndexShape
from latentlens_dag.storage.split_input import SharedInput, split_rows
from latentlens_dag.storage.warehouse import IndexPaths

_ALGORITHM = 1  # raise when the same sentence and model would give other vectors
_SENTENCES_PER_PART = 100_000  # whose candidates are held in memory together


@dataclass(frozen=True)
class OccurrenceFilter:
    """Which occurrences of the sentences are kept (`occurrences.py`)."""

    contexts_per_token: int
    min_position: int
    fraction: float
    sinks: Literal["exclude", "include"] = "exclude"

    def __post_init__(self) -> None:
        """Check the values."""
        for field, least in (("contexts_per_token", 1), ("min_position", 0)):
            value = getattr(self, field)
            if not isinstance(value, int) or value < least:
                raise UserError(f"`{field}={value!r}` must be a whole number of at least {least}.")
        if not 0 < self.fraction <= 1:
            raise UserError(f"`fraction={self.fraction}` must be above 0 and at most 1.")
        if self.sinks not in ("exclude", "include"):
            raise UserError(f"`sinks={self.sinks!r}` must be 'exclude' or 'include'.")


def split_language_model(model: Any, tokenizer: Any) -> LanguageModel:
    """The language model of what a user has loaded, with the tokenizer.

    Raises:
        UserError: where the tokenizer does not know offsets, or the model cannot be taken apart.
    """
    tokenizer = getattr(tokenizer, "tokenizer", tokenizer)  # a processor has one
    if not getattr(tokenizer, "is_fast", False):
        raise UserError(
            f"The tokenizer {type(tokenizer).__name__} is not a fast one, so it does not know which characters a token "
            "stands for. Load it with `AutoTokenizer.from_pretrained(...)`, or convert it to a tokenizer.json."
        )
    if isinstance(model, LanguageModel):
        return replace(model, tokenizer=tokenizer)
    model = model.model if isinstance(model, Vlm) else model
    if isinstance(model, str | Path):
        raise UserError(
            f"`model` is {str(model)!r}: load it first, with `load_language_model`, `load_vlm` or "
            "transformers, and give the model."
        )
    name = str(getattr(model, "name_or_path", "")) or type(model).__name__
    return language_model_of(Path(name).name if Path(name).exists() else name, model, tokenizer)


def build_index(
    model: LanguageModel,
    sentences: Iterable[str],
    layers: Sequence[int] | None,
    folder: Path,
    occurrence_filter: OccurrenceFilter,
    progress: Progress,
) -> None:
    """Write the index; arguments and errors as `ContextualIndex.build`."""
    chosen, dedup = _chosen_layers(model, layers), _dedup_for(model)
    # On the disk of the index, where there is more room than in /tmp.
    working_folder = partial(tempfile.TemporaryDirectory, prefix="work-", ignore_cleanup_errors=True)
    with new_index(folder, "Name another folder.") as new, working_folder(dir=new.root) as work:
        count = write_texts(_checked(sentences), new.own_sentences, "There is not one sentence to make an index of.")
        build = _Build(model, chosen, dedup, occurrence_filter, progress, Path(work), new, IndexPaths(folder))
        rows = build.write_occurrences(-(-count // _SENTENCES_PER_PART))
        build.write_tables(rows)
        layer_rows = dict.fromkeys(chosen, sum(rows))
        shape = IndexShape(
            parts=len(rows), layers=chosen, language_model=model.name, rows=layer_rows, dtype=build.dtype
        )
        shape.write(new.shape)


@dataclass(frozen=True)
class _Build:
    model: LanguageModel
    layers: list[int]
    dedup: self_checks.Dedup
    filter: OccurrenceFilter
    progress: Progress
    work: Path
    new: IndexPaths
    old: IndexPaths
    """The index that is replaced, whose rows are not encoded again; there need be none."""

    @property
    def dtype(self) -> str:
        """In which the model is computed."""
        return str(self.model.embedding.dtype).removeprefix("torch.")

    def write_occurrences(self, parts: int) -> list[int]:
        """Write the occurrences of each part; give their numbers. The parts' sentences stay in the working folder."""
        long: list[core.LongSentence] = []
        candidates = [self._write_candidates(part, parts, long) for part in range(parts)]
        if long:
            text = core.long_sentences_warning(long, self.model.name, self.model.positions, self.dedup)
            warnings.warn(text, stacklevel=4)
        selection = self.work / "selection.parquet"
        core.write_selection(candidates, self.filter.contexts_per_token, selection)
        rows = []
        for part, file in enumerate(candidates):
            occurrences = core.selected_rows(file, selection)
            write_parquet(occurrences, self.new.occurrences(part), OCCURRENCES)
            rows.append(len(occurrences))
        if not sum(rows):
            raise UserError(
                f"Of `fraction={self.filter.fraction}` of the sentences none has a token at position "
                f"{self.filter.min_position} or later (`min_position`), so the index would be empty: give more or "
                "longer sentences, or a lower `min_position`."
            )
        return rows

    def _write_candidates(self, part: int, parts: int, long: list[core.LongSentence]) -> Path:
        sentences = SharedInput(partial(sentences_by_shard, self.new.own_sentences, parts), version=str(self.work))
        with split_rows(sentences, self.work / "split", part, parts) as rows:
            write_shard(rows, self._sentences(part))
        candidates = core.candidates(
            self.model.tokenizer,
            core.read_sentences(self._sentences(part)),
            self.model.name,
            self.filter.contexts_per_token,
            min_position=self.filter.min_position,
            fraction=self.filter.fraction,
            dedup=self.dedup,
            positions=self.model.positions,
            report_long=long.append,
        )
        file = self.work / f"candidates_{part:02d}.parquet"
        write_parquet(candidates, file)
        return file

    def write_tables(self, rows: list[int]) -> None:
        """Encode the occurrences part by part, and commit a table for each layer."""
        encoder = _encoder(self.model, self.dedup, [self.old.layer_table(layer) for layer in self.layers])
        for part in range(len(rows)):
            self._encode(part, rows, encoder)
            self.progress(sum(rows[: part + 1]), sum(rows))
        for layer in self.layers:
            table, records = self.new.layer_table(layer), [self._record(layer, part) for part in range(len(rows))]
            provenance = provenance_json(made_by="ContextualIndex.build", language_model=self.model.name)
            if commit_fragments(table, records, provenance, self.filter.sinks).rows >= approximate.WORTH_ROWS:
                approximate.build_approximate_index(table)

    def _encode(self, part: int, rows: list[int], encoder: str) -> None:
        """Write the vectors of a part at all layers as fragments."""
        done, total = sum(rows[:part]), sum(rows)
        occurrences = core.read_occurrences(self.new.occurrences(part))
        with tempfile.TemporaryDirectory(dir=self.work) as scratch, _inference(self.model):
            vectors = encode_missing(
                lambda: self.model,
                encoder,
                occurrences,
                pq.read_table(self._sentences(part)),
                tables={layer: self.old.layer_table(layer) for layer in self.layers},
                scratch=Path(scratch),
                progress=lambda tokens, of: self.progress(done + rows[part] * tokens // of, total),
                whole=self.dedup == "sentence",
            ).encoded
            for layer in self.layers:
                record, table = self._record(layer, part), self.new.layer_table(layer)
                write_fragments(table, record, occurrences, *vectors[layer], encoder, self.dtype)
            del vectors  # its memory maps lie in the folder that is deleted now

    def _sentences(self, part: int) -> Path:
        return self.work / f"sentences_{part:02d}.parquet"

    def _record(self, layer: int, part: int) -> Path:
        return self.work / f"layer_{layer:02d}_{part:02d}.json"


def _dedup_for(model: LanguageModel) -> self_checks.Dedup:
    """Whether equal prefixes have equal states in this model, found by running it.

    Raises:
        UserError: where its states change with the padding of their batch.
    """
    with _inference(model):
        dedup: self_checks.Dedup = "prefix" if causality(model).passed else "sentence"
        self_checks.check_index_model(model, dedup, model.name)
    return dedup


def _chosen_layers(model: LanguageModel, layers: Sequence[int] | None) -> list[int]:
    chosen = auto_contextual_layers(model.depth) if layers is None else as_int_list(layers, "layers")
    check_layers(chosen, model.depth, model.name, "the call of build")
    if not chosen:
        raise UserError(f"`layers={layers}` names no layer. {model.name} has layers 0 to {model.depth - 1}.")
    return sorted(set(chosen))


def _checked(sentences: Iterable[str]) -> Iterator[str]:
    if isinstance(sentences, str | bytes):
        raise UserError("`sentences` is one text: give a list of sentences, or an iterator over them.")
    for number, text in enumerate(sentences):
        if not isinstance(text, str):
            raise UserError(f"Sentence {number} (from 0) is {text!r:.80}, no text.")
        if len(text) > MAX_CHARACTERS:
            raise UserError(
                f"Sentence {number} (from 0) has {len(text):,} characters (at most {MAX_CHARACTERS:,}): split it."
            )
        if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
            raise UserError(f"Sentence {number} (from 0) holds half a character (a surrogate): was it decoded wrongly?")
        if text := text.strip():
            yield text


def _encoder(model: LanguageModel, dedup: self_checks.Dedup, tables: list[Path]) -> str:
    """The encoder of the vectors: that of an older fingerprint's scheme where a table of this model has it."""
    rest = [model.embedding.dtype, *([dedup] if dedup == "sentence" else [])]
    stored = {encoder_of(table) for table in tables} - {None}
    if stored and (older := _older_fingerprint(model)) and (found := hash_values([_ALGORITHM, older, *rest])) in stored:
        return found
    return hash_values([_ALGORITHM, fingerprint(model, SCHEME), *rest])


def _older_fingerprint(model: LanguageModel) -> str | None:
    try:
        return fingerprint(model, 1)
    except IndexError:  # no table can have it
        return None


@contextmanager
def _inference(model: LanguageModel) -> Iterator[None]:
    """Without dropout; the user's settings are restored."""
    was = {module: module.training for module in model.decoder.modules()}
    model.decoder.eval()
    try:
        yield
    finally:
        for module, training in was.items():
            module.training = training
