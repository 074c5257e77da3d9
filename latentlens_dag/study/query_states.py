"""Queries for an index: the states of a text's tokens, or the stored state of a token of a study.

Note: a token's state depends on the tokens before it, so " dog" in a sentence is not " dog" alone, and its nearest
occurrences have similar beginnings.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from latentlens_dag.errors import UserError
from latentlens_dag.index.state_tables import read_states
from latentlens_dag.models.hooks import capture_hidden_states
from latentlens_dag.models.language_model import LanguageModel
from latentlens_dag.models.layers import check_layers, middle_layer
from latentlens_dag.models.tokenization import token_texts, tokenize
from latentlens_dag.storage.hashing import shard_of, text_id
from latentlens_dag.storage.shapes import study_shape
from latentlens_dag.storage.warehouse import Warehouse
from latentlens_dag.study.norms import norms_of, sink_norm_of_states

if TYPE_CHECKING:
    from numpy.typing import NDArray

_IMAGE_ID = re.compile(r"[0-9a-f]{16}")


class QueryStates(NamedTuple):
    """Some tokens and their states at one layer."""

    tokens: list[str]
    """The text of each, or the number of a visual token."""
    layer: int
    states: NDArray[np.float32]  # [tokens, d]
    sentence_id: str | None = None
    """The id that the text would have as a sentence of a corpus; None for visual tokens."""


def encode_query(model: LanguageModel, text: str, layer: int) -> QueryStates:
    """The states of every real token of a text, read by itself.

    Raises:
        UserError: if the layer does not exist, or the text has no token.
    """
    import torch

    check_layers([layer], model.depth, model.name, "the command (`--layer`)")
    tokens = tokenize(model.tokenizer, [text])[0]
    real = tokens.text_positions
    if not real or not text.strip():
        raise UserError("The text has no token: write a word or a sentence.")
    ids = torch.tensor([tokens.ids], device=model.embedding.device)
    keep = lambda states: states[0, real].float().cpu()  # noqa: E731
    with capture_hidden_states(model.decoder, [layer], keep) as states, torch.inference_mode():
        model.decoder(input_ids=ids, use_cache=False)
    names = token_texts(model.tokenizer, {tokens.ids[i] for i in real})
    return QueryStates([names[tokens.ids[i]] for i in real], layer, states[layer].numpy(), text_id(text.strip()))


def stored_query(
    warehouse: Warehouse, study: str, image_id: str, token: int, layer: int | None, near: int
) -> QueryStates:
    """The stored state of one visual token, or of one token of a text of a study of texts.

    Args:
        warehouse: holds the study's results.
        study: its name.
        image_id: of the table images; for a study of texts, a text_id.
        token: index in the image or text.
        layer: a visual layer of the study; if None, `near` where the study has it, else the middle layer.
        near: a layer.

    Raises:
        UserError: if the study is not built, or has no such image, token or layer.
    """
    shape = study_shape(warehouse, study)
    layers = sorted(shape.visual_layers)
    if layer is None:
        layer = near if near in layers else middle_layer(layers)
    elif layer not in layers:
        raise UserError(f"Study {study} has no visual layer {layer}; it has {', '.join(map(str, layers))}.")
    states, of_texts = None, shape.of == "texts"
    batch = shard_of(image_id, shape.parts) if _IMAGE_ID.fullmatch(image_id) else -1
    if batch >= 0 and (path := warehouse.visual(study, layer, batch)).is_dir():
        states = read_states(path, image_id)
    what, table = ("text", "FROM texts") if of_texts else ("image", "SELECT image_id, file_name FROM images")
    if states is None or not len(states.token_index):
        raise UserError(
            f"Study {study} has no {what} {image_id!r} at visual layer {layer}: is it misspelled, or the study not "
            f'built to the end? `latentlens-dag query "{table}"` lists them.'
        )
    where = np.flatnonzero(states.token_index == token)
    if not len(where):
        kind = "token" if of_texts else "visual token"
        raise UserError(
            f"{what.capitalize()} {image_id} has no {kind} {token}; it has {states.token_index.min()} to "
            f"{states.token_index.max()}."
        )
    if not of_texts:
        return QueryStates([str(token)], layer, states.states[where])
    name = _token_str(warehouse.text_tokens(study, batch), image_id, token)
    return QueryStates([name], layer, states.states[where], image_id)


def mean_state(warehouse: Warehouse, study: str, layer: int) -> NDArray[np.float64]:
    """The mean [d] of a study's stored states at a visual layer, of all batches, without attention sinks."""
    batches = range(study_shape(warehouse, study).parts)
    files = [warehouse.visual(study, layer, batch) for batch in batches]
    norms = [norms_of(file) for file in files]
    longest = sink_norm_of_states(files, np.concatenate(norms))
    count, total = 0, np.zeros(1)
    for file, of_file in zip(files, norms, strict=True):
        usual = of_file <= longest
        count += int(usual.sum())
        total = total + read_states(file).states[usual].astype(np.float64).sum(0)
    return total / count


def _token_str(text_tokens: Path, text_id: str, token: int) -> str:
    import pyarrow.parquet as pq

    rows = pq.read_table(text_tokens, filters=[("image_id", "=", text_id), ("token_index", "=", token)])
    return str(rows["token_str"][0])
