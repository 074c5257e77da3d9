"""Making an index that stands alone: sentences in, a folder out.

The steps are those of a warehouse's index (candidates, selection, occurrences, states, layer tables), part by
part, on one machine. What a newcomer gets wrong: a part is a share of the sentences by hash, so the number of
parts depends on how many distinct sentences there are, not on their order.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pyarrow.parquet as pq

from latentlens_dag.errors import UserError
from latentlens_dag.index import approximate
from latentlens_dag.index import occurrences as core
from latentlens_dag.index.encode import encode_missing
from latentlens_dag.index.folder import new_index
from latentlens_dag.index.layer_tables import commit_fragments, encoder_of, write_fragments
from latentlens_dag.inputs.texts import MAX_CHARACTERS, write_shard, write_texts
from latentlens_dag.models import self_checks
from latentlens_dag.models.fingerprints import SCHEME, fingerprint
from latentlens_dag.models.language_model import LanguageModel
from latentlens_dag.models.layers import as_int_list, auto_contextual_layers, check_layers
from latentlens_dag.models.loading import language_model_of
from latentlens_dag.models.vlm import Vlm
from latentlens_dag.schema import OCCURRENCES
from latentlens_dag.storage.hashing import hash_values
from latentlens_dag.storage.package_versions import provenance_json
from latentlens_dag.storage.parquet import write_parquet
from latentlens_dag.storage.shapes import IndexShape
from latentlens_dag.storage.warehouse import IndexPaths

_ALGORITHM = 1  # raise when the same sentence and model would give other vectors
_SENTENCES_PER_PART = 100_000  # whose candidates are held in memory together
_REMEDY = "Name another folder."

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class OccurrenceFilter:
    """Which occurrences of the sentences are kept (`occurrences.py`)."""

    contexts_per_token: int
    min_position: int
    fraction: float
    sinks: Literal["exclude", "include"] = "exclude"

    def __post_init__(self) -> None:
        """Refuse values that keep nothing or mean nothing."""
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
    choice: OccurrenceFilter,
    progress: Progress,
) -> None:
    """Write the index; arguments and errors as `ContextualIndex.build`."""
    chosen, dedup = _chosen_layers(model, layers), _dedup_for(model)
    with new_index(folder, _REMEDY) as new, _working_folder(new.root) as work:
        found = write_texts(_checked(sentences), new.own_sentences, "There is not one sentence to make an index of.")
        parts = -(-found // _SENTENCES_PER_PART)
        rows = _write_occurrences(model, new, work, parts, choice, dedup)
        _write_tables(model, chosen, dedup, new, IndexPaths(folder), work, rows, progress, choice.sinks)
        layer_rows = dict.fromkeys(chosen, sum(rows))
        IndexShape(parts=parts, layers=chosen, language_model=model.name, rows=layer_rows).write(new.shape)


def _dedup_for(model: LanguageModel) -> self_checks.Dedup:
    """Whether equal prefixes have equal states in this model, which the model itself is asked.

    Raises:
        UserError: where its states change with the padding of their batch.
    """
    from latentlens_dag.models.self_checks import check_index_model
    from latentlens_dag.models.text_checks import causality

    with _inference(model):
        dedup: self_checks.Dedup = "prefix" if causality(model).passed else "sentence"
        check_index_model(model, dedup, model.name)
    return dedup


def _chosen_layers(model: LanguageModel, layers: Sequence[int] | None) -> list[int]:
    chosen = auto_contextual_layers(model.depth) if layers is None else as_int_list(layers, "layers")
    check_layers(chosen, model.depth, model.name, "the call of build")
    if not chosen:
        raise UserError(f"`layers={layers}` names no layer. {model.name} has layers 0 to {model.depth - 1}.")
    return sorted(set(chosen))


@contextmanager
def _working_folder(beside: Path) -> Iterator[Path]:
    """A folder for what is not kept, on the disk of the index, where there is more room than in /tmp."""
    with tempfile.TemporaryDirectory(dir=beside, prefix="work-", ignore_cleanup_errors=True) as work:
        yield Path(work)


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


def _write_occurrences(
    model: LanguageModel, new: IndexPaths, work: Path, parts: int, choice: OccurrenceFilter, dedup: self_checks.Dedup
) -> list[int]:
    """Write each part's kept occurrences; give their numbers. Sentences of the parts stay in `work`."""
    offered = [work / f"candidates_{part:02d}.parquet" for part in range(parts)]
    long: list[core.LongSentence] = []
    for part, file in enumerate(offered):
        write_shard(new.own_sentences, part, parts, _sentences_of(work, part))
        sentences = core.read_sentences(_sentences_of(work, part))
        kept, least, share = choice.contexts_per_token, choice.min_position, choice.fraction
        how: dict[str, Any] = {"dedup": dedup, "positions": model.positions, "report_long": long.append}
        found = core.candidates(model.tokenizer, sentences, model.name, kept, least, share, **how)
        write_parquet(found, file)
    if long:
        warnings.warn(core.long_sentences_warning(long, model.name, model.positions, dedup), stacklevel=4)
    selection = work / "selection.parquet"
    core.write_selection(offered, choice.contexts_per_token, selection)
    rows = []
    for part, file in enumerate(offered):
        kept = core.selected_rows(file, selection)
        write_parquet(kept, new.occurrences(part), OCCURRENCES)
        rows.append(len(kept))
    if not sum(rows):
        raise UserError(
            f"Of `fraction={choice.fraction}` of the sentences none has a token at position {choice.min_position} or "
            "later (`min_position`), so the index would be empty: give more or longer sentences, or a lower "
            "`min_position`."
        )
    return rows


def _sentences_of(work: Path, part: int) -> Path:
    return work / f"sentences_{part:02d}.parquet"


def _write_tables(
    model: LanguageModel,
    layers: list[int],
    dedup: self_checks.Dedup,
    new: IndexPaths,
    old: IndexPaths,
    work: Path,
    rows: list[int],
    progress: Progress,
    sinks: Literal["exclude", "include"],
) -> None:
    whole = dedup == "sentence"
    encoder = _encoder(model, dedup, [old.layer_table(layer) for layer in layers])
    records: Mapping[int, list[Path]] = {layer: [] for layer in layers}
    for part in range(len(rows)):
        done = sum(rows[:part])
        kept, sentences = core.read_occurrences(new.occurrences(part)), pq.read_table(_sentences_of(work, part))
        tables = {layer: old.layer_table(layer) for layer in layers}
        tell = lambda read, all_, done=done, part=part: progress(done + rows[part] * read // all_, sum(rows))  # noqa: E731
        with tempfile.TemporaryDirectory(dir=work) as scratch, _inference(model):
            encoded = encode_missing(
                lambda: model, encoder, kept, sentences, tables, Path(scratch), tell, whole
            ).encoded
            for layer in layers:
                record = work / f"layer_{layer:02d}_{part:02d}.json"
                write_fragments(new.layer_table(layer), record, kept, *encoded[layer], encoder)
                records[layer].append(record)
            del encoded  # its memory maps lie in the folder that is deleted now
        progress(done + rows[part], sum(rows))
    for layer in layers:
        made = provenance_json(made_by="ContextualIndex.build", language_model=model.name)
        if commit_fragments(new.layer_table(layer), records[layer], made, sinks).rows >= approximate.WORTH_ROWS:
            approximate.build_approximate_index(new.layer_table(layer))


def _encoder(model: LanguageModel, dedup: self_checks.Dedup, tables: list[Path]) -> str:
    """What the vectors are made by: that of an older fingerprint's scheme where a table of this model has it."""
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
    """Without dropout; what the user had set is set again."""
    was = {module: module.training for module in model.decoder.modules()}
    model.decoder.eval()
    try:
        yield
    finally:
        for module, training in was.items():
            module.training = training
