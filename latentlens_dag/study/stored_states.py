"""The states of a batch's tokens, where only images (or texts) that are new are shown to the model.

What a newcomer gets wrong: of what decides whether what is stored may be taken, only the dtype is known here; who
calls must know the rest (same model, prompt, algorithm). A state that was stored came from a pass over other images
beside it, and differs from that of another pass by rounding.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from latentlens_dag.index.state_tables import TokenStates, read_states
from latentlens_dag.inputs.images import ImageFile, read_images
from latentlens_dag.study.token_tables import text_token_tables, visual_token_table

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from latentlens_dag.models.language_model import LanguageModel
    from latentlens_dag.models.vlm import VisualStates, Vlm


Layer = int | Literal["connector"]
"""A visual layer, or the connector's output."""
TOKENS = "visual_tokens"


class Seen(NamedTuple):
    """The tokens of a batch, with their states."""

    tables: dict[str, pa.Table]
    """VISUAL_TOKENS as "visual_tokens", and whatever else has N rows, image after image (or text after text)."""
    states: dict[Layer, NDArray[np.float32]]
    """Per layer [N, d]."""
    forwarded: int
    """Images or texts that the model was shown."""


@dataclass(frozen=True)
class StoredStates:
    """What of a batch was stored before and may be taken."""

    tables: Mapping[str, pa.Table] = field(default_factory=dict)
    """As in `Seen`; none, where nothing may be taken."""
    states: Mapping[Layer, TokenStates] = field(default_factory=dict)

    @classmethod
    def read(cls, tables: Mapping[str, Path], layers: Mapping[Layer, Path], dtype: str = "float32") -> StoredStates:
        """What lies in these files and was computed in `dtype`."""
        states = {layer: read_states(path) for layer, path in layers.items()} if tables else {}
        return cls(
            {name: pq.read_table(path) for name, path in tables.items()},
            {layer: found for layer, found in states.items() if found.dtype == dtype},
        )

    def images(self, layers: Sequence[Layer]) -> set[str]:
        """The images (or texts) whose tokens have states at all of the layers."""
        if TOKENS not in self.tables or not set(layers) <= set(self.states):
            return set()
        counts = Counter(self.tables[TOKENS]["image_id"].to_pylist())
        known = [Counter(table["image_id"].to_pylist()) for table in self.tables.values()]
        known += [Counter(self.states[layer].image_ids) for layer in layers]
        return {image for image, tokens in counts.items() if all(one.get(image) == tokens for one in known)}


def visual_batch_states(
    load: Callable[[], Vlm],
    study: str,
    files: Sequence[ImageFile],
    layers: Sequence[Layer],
    prompt: str | None,
    stored: StoredStates,
) -> Seen:
    """Tokens and states of a batch's images, of which those that are stored are not shown to the model.

    Args:
        load: gives the model; not called where nothing is new.
        study: its name, for the table of tokens.
        files: image ids and files, in the order that the tables shall have.
        layers: visual layers, and the connector's output.
        prompt: as in `Vlm.visual_states`.
        stored: what may be taken.
    """

    def shown(new: list[int]) -> Seen:
        some = [files[number] for number in new]
        images = [image for _, image in read_images(some)]
        numbers = [layer for layer in layers if layer != "connector"]
        seen = load().visual_states(images, numbers, prompt, "connector" in layers)
        tokens = visual_token_table(study, [file.image_id for file in some], seen.tokens)
        return Seen({TOKENS: tokens}, {layer: _states_of(seen, layer).numpy() for layer in layers}, len(some))

    return _with_new([file.image_id for file in files], layers, stored, shown)


def text_batch_states(
    load: Callable[[], LanguageModel],
    study: str,
    texts: Mapping[str, str],
    layers: Sequence[int],
    stored: StoredStates,
) -> Seen:
    """Tokens (in two tables, as `text_token_tables` has them) and states of a batch's texts, by id; as above."""
    from latentlens_dag.models.text_states import text_states

    def shown(new: list[int]) -> Seen:
        some = [list(texts.items())[number] for number in new]
        seen = text_states(load(), [text for _, text in some], layers)
        tables = text_token_tables(study, [one for one, _ in some], seen.tokens)
        return Seen(tables._asdict(), {layer: seen.states[layer].numpy() for layer in layers}, len(some))

    return _with_new(list(texts), layers, stored, shown)


def _states_of(seen: VisualStates, layer: Layer) -> Tensor:
    if layer != "connector":
        return seen.states[layer]
    assert seen.connector is not None
    return seen.connector


def _with_new(
    ids: Sequence[str], layers: Sequence[Layer], stored: StoredStates, shown: Callable[[list[int]], Seen]
) -> Seen:
    """What is stored of some ids, and what `shown` gives for the places of the others, in the order of the ids."""
    known = stored.images(layers)
    new = [number for number, one in enumerate(ids) if one not in known]
    parts = [_rows_of(stored, known & set(ids), layers)] if known & set(ids) else []
    parts += [shown(new)] if new or not parts else []
    order = {one: place for place, one in enumerate(ids)}
    tables = {name: pa.concat_tables([part.tables[name] for part in parts]) for name in parts[0].tables}
    rows = np.argsort([order[one] for one in tables[TOKENS]["image_id"].to_pylist()], kind="stable")
    states = {layer: np.concatenate([part.states[layer] for part in parts])[rows] for layer in layers}
    return Seen({name: table.take(rows) for name, table in tables.items()}, states, len(new))


def _rows_of(stored: StoredStates, ids: set[str], layers: Sequence[Layer]) -> Seen:
    """The stored tokens and states of some ids."""
    tables = {
        name: table.filter(pa.array(np.isin(table["image_id"].to_pylist(), list(ids))))
        for name, table in stored.tables.items()
    }
    states = {layer: stored.states[layer] for layer in layers}
    return Seen(tables, {layer: at.states[np.isin(at.image_ids, list(ids))] for layer, at in states.items()}, 0)
