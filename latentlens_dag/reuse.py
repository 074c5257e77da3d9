"""The states of a batch's visual tokens, where only images that are new are shown to the model.

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

from latentlens_dag.images import ImageFile, read_images
from latentlens_dag.studies import visual_token_table
from latentlens_dag.tables import States, read_states

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from latentlens_dag.models import VisualStates, Vlm


Layer = int | Literal["connector"]
"""A visual layer, or the connector's output."""


class Seen(NamedTuple):
    """The visual tokens of a batch, with their states."""

    tokens: pa.Table
    """VISUAL_TOKENS, N rows, image after image."""
    states: dict[Layer, NDArray[np.float32]]
    """Per layer [N, d]."""
    forwarded: int
    """Images that the model was shown."""


@dataclass(frozen=True)
class StoredStates:
    """What of a batch was stored before and may be taken."""

    tokens: pa.Table | None = None
    """VISUAL_TOKENS."""
    states: Mapping[Layer, States] = field(default_factory=dict)

    @classmethod
    def read(cls, tokens: Path | None, layers: Mapping[Layer, Path], dtype: str = "float32") -> StoredStates:
        """What lies in these files and was computed in `dtype`; nothing where there is no table of tokens."""
        if tokens is None:
            return cls()
        found = {layer: read_states(path) for layer, path in layers.items()}
        return cls(pq.read_table(tokens), {layer: states for layer, states in found.items() if states.dtype == dtype})

    def images(self, layers: Sequence[Layer]) -> set[str]:
        """The images whose tokens have states at all of the layers."""
        if self.tokens is None or not set(layers) <= set(self.states):
            return set()
        counts = Counter(self.tokens["image_id"].to_pylist())
        known = [Counter(self.states[layer].image_ids) for layer in layers]
        return {image for image, tokens in counts.items() if all(one.get(image) == tokens for one in known)}


def visual_states_of(
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
    known = stored.images(layers)
    new = [file for file in files if file.image_id not in known]
    order = {file.image_id: place for place, file in enumerate(files)}
    tokens, states = _stored_rows(stored, known & set(order), layers)
    if new or not files:
        images = [image for _, image in read_images(list(new))]
        numbers = [layer for layer in layers if layer != "connector"]
        seen = load().visual_states(images, numbers, prompt, "connector" in layers)
        tokens.append(visual_token_table(study, [file.image_id for file in new], seen.tokens))
        for layer in layers:
            states[layer].append(_states_of(seen, layer).numpy())
    found = pa.concat_tables(tokens)
    rows = np.argsort([order[image] for image in found["image_id"].to_pylist()], kind="stable")
    return Seen(found.take(rows), {layer: np.concatenate(states[layer])[rows] for layer in layers}, len(new))


def _states_of(seen: VisualStates, layer: Layer) -> Tensor:
    if layer != "connector":
        return seen.states[layer]
    assert seen.connector is not None
    return seen.connector


def _stored_rows(
    stored: StoredStates, images: set[str], layers: Sequence[Layer]
) -> tuple[list[pa.Table], dict[Layer, list[NDArray[np.float32]]]]:
    """Tokens and states of some stored images: a list of one part, or of none."""
    if not images or stored.tokens is None:
        return [], {layer: [] for layer in layers}
    mask = np.isin(stored.tokens["image_id"].to_pylist(), list(images))
    states = {layer: stored.states[layer] for layer in layers}
    return [stored.tokens.filter(pa.array(mask))], {
        layer: [at.states[np.isin(at.image_ids, list(images))]] for layer, at in states.items()
    }
