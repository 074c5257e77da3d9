"""The numbering of layers, and the default choice of them.

Layer i is the residual stream that enters block i: layer 0 is the input embeddings (for visual tokens, what enters
block 0); layer L, the stream after the last of L blocks, is never used. Note: `hidden_states[-1]` of transformers is
*after* the final norm, so it is not layer L.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from latentlens_dag.errors import UserError
from latentlens_dag.text.html import some


def auto_contextual_layers(depth: int) -> list[int]:
    """The contextual layers that the paper uses, generalized to a model of `depth` blocks, L.

    1, 2, 4, 8, 16; then 24 (up to 40 blocks) or round(L/2) and round(3L/4) (above); L-8 from 64 blocks on; and always
    L-2 and L-1 (arXiv 2602.00462, appendix B).
    """
    layers = {1, 2, 4, 8, 16, depth - 2, depth - 1}
    if depth <= 40:
        layers.add(24)
    if depth > 40:
        layers |= {round(depth / 2), round(3 * depth / 4)}
    if depth >= 64:
        layers.add(depth - 8)
    return sorted(layer for layer in layers if 1 <= layer < depth)


def auto_visual_layers(depth: int) -> list[int]:
    """Layer 0 and the layers of `auto_contextual_layers`."""
    return [0, *auto_contextual_layers(depth)]


def middle_layer(layers: Sequence[int]) -> int:
    """The one in the middle of layers that are in order; of an even number, the upper of the two."""
    return layers[len(layers) // 2]


def as_int_list(values: object, field: str) -> list[int]:
    """The argument `field` of a public function as a list of ints.

    Raises:
        UserError: if it is not an iterable of whole numbers.
    """
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise UserError(f"`{field}={values!r}` must be a list of numbers, such as [1, 2].")
    numbers = list(values)
    if not all(isinstance(number, int) or getattr(number, "dtype", None) is not None for number in numbers):
        raise UserError(f"`{field}={numbers}` must be whole numbers.")
    return [int(number) for number in numbers]


def check_layers(layers: Sequence[int], depth: int, model: str, place: str) -> None:
    """Refuse layers that a model of `depth` blocks does not have.

    Raises:
        UserError: with the layer, the layers of the model, and `place`, where the user wrote them.
    """
    for layer in layers:
        if not 0 <= layer < depth:
            raise UserError(
                f"Layer {layer} was asked for, but {model} has {depth} blocks: layers 0 (input embeddings) to "
                f"{depth - 1} (what enters the last block). Correct `layers` in {place}."
            )


def states_text(states: Mapping[int, Any], tokens: int, what: str) -> str:
    """The sizes of states by layer, in words: 36 visual tokens at layers 0, 8; width 32."""
    width = next((f"; width {at.shape[-1]:,}" for at in states.values()), "")
    return f"{tokens:,} {what}{'' if tokens == 1 else 's'} at layers {some(sorted(states)) or 'none'}{width}"
