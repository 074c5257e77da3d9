"""The states of a batch's tokens; only images (or texts) without stored states go through the model.

Note: of what decides whether stored states may be reused, only the dtype is checked here; the caller must know the rest
(same model, prompt, algorithm). A stored state was computed beside other images, and differs from that of another pass
by rounding.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from latentlens_dag.index.state_tables import TokenStates, read_states
from latentlens_dag.inputs.images import ImageFile, read_in_chunks, without_metadata_warnings
from latentlens_dag.study.token_tables import text_token_tables, visual_token_table

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image
    from transformers import PreTrainedTokenizerBase

    from latentlens_dag.models.language_model import LanguageModel
    from latentlens_dag.models.prompts import Prompt
    from latentlens_dag.models.vlm import Vlm


Progress = Callable[[int, int], None]
"""Takes what is done and what there is in all."""
Layer = int | Literal["connector"]
"""A visual layer, or the connector's output."""
TOKENS = "visual_tokens"


class BatchStates(NamedTuple):
    """The N tokens of a batch, image after image (or text after text), with their states."""

    tables: dict[str, pa.Table]
    """VISUAL_TOKENS as "visual_tokens", and other tables of N rows."""
    states: dict[Layer, NDArray[np.float32]]
    """Per layer [N, d]."""
    forwarded: int
    """Images or texts that went through the model."""


@dataclass(frozen=True)
class StoredStates:
    """What of a batch is stored and may be reused."""

    tables: Mapping[str, pa.Table] = field(default_factory=dict)
    """As in `BatchStates`; empty where nothing may be reused."""
    states: Mapping[Layer, TokenStates] = field(default_factory=dict)

    @classmethod
    def read(cls, tables: Mapping[str, Path], layers: Mapping[Layer, Path], dtype: str = "float32") -> StoredStates:
        """The content of these files, as far as it was computed in `dtype`."""
        states = {layer: read_states(path) for layer, path in layers.items()} if tables else {}
        return cls(
            {name: pq.read_table(path) for name, path in tables.items()},
            {layer: stored for layer, stored in states.items() if stored.dtype == dtype},
        )

    def images(self, layers: Sequence[Layer]) -> set[str]:
        """The images (or texts) whose tokens have states at all of the layers."""
        if TOKENS not in self.tables or not set(layers) <= set(self.states):
            return set()
        tokens = Counter(self.tables[TOKENS]["image_id"].to_pylist())
        stored = [Counter(table["image_id"].to_pylist()) for table in self.tables.values()]
        stored += [Counter(self.states[layer].image_ids) for layer in layers]
        return {image for image, count in tokens.items() if all(counts.get(image) == count for counts in stored)}

    def of_images(self, ids: set[str], layers: Sequence[Layer]) -> BatchStates:
        """The stored tokens and states of some images (or texts)."""
        wanted = list(ids)
        tables = {
            name: table.filter(pa.array(np.isin(table["image_id"].to_pylist(), wanted)))
            for name, table in self.tables.items()
        }
        stored = {layer: self.states[layer] for layer in layers}
        return BatchStates(tables, {layer: at.states[np.isin(at.image_ids, wanted)] for layer, at in stored.items()}, 0)


def visual_batch_states(
    load: Callable[[], Vlm],
    study: str,
    files: Sequence[ImageFile],
    layers: Sequence[Layer],
    prompt: str | Prompt | None,
    stored: StoredStates,
    progress: Progress = lambda done, total: None,
) -> BatchStates:
    """Tokens and states of a batch's images; those in `stored` do not go through the model.

    Args:
        load: gives the model; not called where nothing is new.
        study: name of the study, for the table of tokens.
        files: image ids and files, in the order of the tables.
        layers: visual layers, and the connector's output.
        prompt: as in `Vlm.visual_states`.
        stored: what may be reused.
        progress: called after every forward pass with the images read and all new images.
    """

    def run_model(numbers: list[int]) -> BatchStates:
        from latentlens_dag.models.vlm import IMAGES_PER_PASS

        new, vlm = [files[number] for number in numbers], load()
        for size in dict.fromkeys(file.size for file in new if file.size is not None):
            vlm.token_map(*size)  # refuses before the first pass
        visual_layers = [layer for layer in layers if layer != "connector"]
        passes = _reported(read_in_chunks(new, IMAGES_PER_PASS), len(new), progress)
        with without_metadata_warnings():
            found = vlm.states_in_passes(passes, visual_layers, prompt, "connector" in layers)
        tokens = visual_token_table(study, [file.image_id for file in new], found.tokens)
        states: dict[Layer, NDArray[np.float32]] = {layer: found.states[layer].numpy() for layer in visual_layers}
        if found.connector is not None:
            states["connector"] = found.connector.numpy()
        return BatchStates({TOKENS: tokens}, states, len(new))

    return _with_stored([file.image_id for file in files], layers, stored, run_model)


def text_batch_states(
    load: Callable[[], LanguageModel],
    load_tokenizer: Callable[[], PreTrainedTokenizerBase],
    study: str,
    texts: Mapping[str, str],
    layers: Sequence[int],
    stored: StoredStates,
    progress: Progress = lambda done, total: None,
) -> BatchStates:
    """Tokens (in the two tables of `text_token_tables`) and states of a batch's texts, by id; else as above.

    Stored tokens say only of which texts there are states: the tables are made from the texts, so that another rule for
    words, or no layers, take no model. `load_tokenizer` gives the model's tokenizer; it is not called where the model
    is loaded. `progress` is called with the tokens read and all tokens of new texts.
    """
    from latentlens_dag.models.text_states import text_states, token_table

    all_ids = list(texts)

    def run_model(numbers: list[int]) -> BatchStates:
        ids = [all_ids[number] for number in numbers]
        found = text_states(load(), [texts[text_id] for text_id in ids], layers, progress)
        tables = {TOKENS: text_token_tables(study, ids, found.tokens).visual_tokens}
        return BatchStates(tables, {layer: found.states[layer].numpy() for layer in layers}, len(ids))

    only_ids = StoredStates({name: table for name, table in stored.tables.items() if name == TOKENS}, stored.states)
    found = _with_stored(all_ids, layers, only_ids, run_model) if layers else BatchStates({}, {}, 0)
    tokenizer = load().tokenizer if found.forwarded else load_tokenizer()
    tables = text_token_tables(study, all_ids, token_table(tokenizer, list(texts.values())))
    return found._replace(tables=tables._asdict())


def _reported(passes: Iterable[list[Image]], total: int, progress: Progress) -> Iterator[list[Image]]:
    """The passes; one is done when the next is taken."""
    done = 0
    for images in passes:
        yield images
        done += len(images)
        del images  # before the next ones are read
        progress(done, total)


def _with_stored(
    ids: Sequence[str], layers: Sequence[Layer], stored: StoredStates, run_model: Callable[[list[int]], BatchStates]
) -> BatchStates:
    """Stored tokens and states, and those that `run_model` gives for the other indices, in the order of the ids."""
    known = stored.images(layers) & set(ids)
    new = [number for number, image_id in enumerate(ids) if image_id not in known]
    parts = [stored.of_images(known, layers)] if known else []
    parts += [run_model(new)] if new or not parts else []
    tables = {name: pa.concat_tables([part.tables[name] for part in parts]) for name in parts[0].tables}
    order = {image_id: number for number, image_id in enumerate(ids)}
    rows = np.argsort([order[image_id] for image_id in tables[TOKENS]["image_id"].to_pylist()], kind="stable")
    if len(parts) == 1 and (rows == np.arange(len(rows))).all():
        return BatchStates(tables, parts[0].states, len(new))  # not copied
    # Popped, so that no more than one layer is in memory twice.
    states = {layer: np.concatenate([part.states.pop(layer) for part in parts])[rows] for layer in layers}
    return BatchStates({name: table.take(rows) for name, table in tables.items()}, states, len(new))
