"""Two gates before a connector is trained: can the language model be read at all?

*Captioning a passage*: the share of a passage's objects that the greedy caption names. *Oracle
connector*: every visual token gets the input embedding of the true word of its patch. What the lens
cannot read then, no connector can make readable: the sentences about that word are too uniform.
"""

from __future__ import annotations

import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from latentlens_dag.demo.assemble import CaptionScores, score_captions
from latentlens_dag.demo.language import word_token
from latentlens_dag.demo.scenes import View
from latentlens_dag.demo.text_captions import LEARNED, PROMPT, passage, random_view
from latentlens_dag.demo.text_grammar import Sentences
from latentlens_dag.demo.world import World

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

HELD_OUT = 10**15
"""Seeds of held-out passages start here; training stays far below."""
WORD = re.compile(r"\w+")


class Contexts(NamedTuple):
    """The contextual states of a corpus, at most a few per token."""

    states: Tensor
    """float32 [layers, N, d], unit rows."""
    words: list[str]
    """Lower-case word around each of the N tokens."""


@dataclass(frozen=True)
class OracleScores:
    """Shares of patches that the lens reads when each visual token is the embedding of its true word."""

    by_layer: dict[int, float]
    worst: dict[str, float]
    """The twelve names that are read least: share of their patches that are read, mean over layers."""

    @property
    def mean(self) -> float:
        """Mean over the layers."""
        return sum(self.by_layer.values()) / len(self.by_layer)


def score_passages(
    world: World, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, passages: int = 200
) -> CaptionScores:
    """Caption held-out passages greedily and compare with their views."""
    views, texts = _passages(world, passages)
    captions = generate(model, tokenizer, [text + PROMPT for text in texts])
    return score_captions(world, zip(captions, views, strict=True))


def generate(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, prefixes: Sequence[str], new_tokens: int = 80
) -> list[str]:
    """The greedy continuation of each prefix; 25 at a time, padded on the left."""
    import torch

    found: list[str] = []
    for start in range(0, len(prefixes), 25):
        inputs = tokenizer(list(prefixes[start : start + 25]), return_tensors="pt", padding=True, padding_side="left")
        with torch.inference_mode():
            output = model.generate(
                input_ids=inputs["input_ids"],
                attention_mask=inputs["attention_mask"],
                max_new_tokens=new_tokens,
                do_sample=False,
            )
        new = output[:, inputs["input_ids"].shape[1] :]
        found += [text.strip() for text in tokenizer.batch_decode(new, skip_special_tokens=True)]
    return found


def encode_contexts(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    sentences: Sequence[str],
    layers: Sequence[int],
    per_token: int = 50,
) -> Contexts:
    """The states of each token's first `per_token` distinct prefixes, without each sentence's first token."""
    import torch

    kept: Counter[int] = Counter()
    prefixes: set[tuple[int, ...]] = set()
    states: list[Tensor] = []
    words: list[str] = []
    for batch in _batches(tokenizer, sentences):
        with torch.inference_mode():
            hidden = model(input_ids=batch.input_ids, output_hidden_states=True).hidden_states
        stacked = torch.stack([hidden[layer] for layer in layers])
        for row, (ids, spans, sentence) in enumerate(batch.rows):
            chosen = []
            for position in range(2, len(ids)):
                prefix = tuple(ids[: position + 1])
                if kept[ids[position]] < per_token and prefix not in prefixes:
                    prefixes.add(prefix)
                    kept[ids[position]] += 1
                    chosen.append(position)
                    words.append(_word_around(sentence, *spans[position]))
            states.append(stacked[:, row, chosen].clone())
    return Contexts(torch.nn.functional.normalize(torch.cat(states, 1).float(), dim=-1), words)


def score_oracle(
    world: World,
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    contexts: Contexts,
    layers: Sequence[int],
    scenes: Sequence[Sequence[str]],
) -> OracleScores:
    """Read `scenes`, each the name of every patch in row-major order, with the lens at each of `layers`.

    A patch is read when one of the five nearest contexts, from any contextual layer, stands for a
    concrete word of the patch's thing.
    """
    concrete = {item.name: set(item.concrete_words) for item in world.items}
    read: dict[str, list[bool]] = defaultdict(list)
    by_layer: dict[int, float] = {}
    names = [name for scene in scenes for name in scene]
    states = _oracle_states(model, tokenizer, scenes, layers)
    for layer, queries in zip(layers, states, strict=True):
        hits = [
            bool(concrete[name] & set(words)) for name, words in zip(names, _nearest(queries, contexts), strict=True)
        ]
        by_layer[layer] = sum(hits) / len(hits)
        for name, hit in zip(names, hits, strict=True):
            read[name].append(hit)
    shares = sorted((sum(hits) / len(hits), name) for name, hits in read.items())
    return OracleScores(by_layer, {name: share for share, name in shares[:12]})


def _passages(world: World, count: int) -> tuple[list[View], list[str]]:
    sentences = Sentences(world)
    views, texts = [], []
    for number in range(count):
        rng = random.Random(HELD_OUT + number)
        views.append(random_view(world, rng))
        texts.append(LEARNED.sub(r"\1", passage(world, sentences, views[-1], rng)))
    return views, texts


class _Batch(NamedTuple):
    input_ids: Tensor
    rows: list[tuple[list[int], list[tuple[int, int]], str]]
    """Of each sentence its token ids, their character spans and the sentence."""


def _batches(tokenizer: PreTrainedTokenizerFast, sentences: Sequence[str], size: int = 128) -> Iterator[_Batch]:
    """Sentences of like length together, padded on the right, which a causal model does not see."""
    import torch

    encoded = tokenizer(list(sentences), return_offsets_mapping=True)
    rows = list(zip(encoded["input_ids"], encoded["offset_mapping"], sentences, strict=True))
    rows.sort(key=lambda row: len(row[0]))
    for start in range(0, len(rows), size):
        block = rows[start : start + size]
        longest = max(len(ids) for ids, _, _ in block)
        yield _Batch(torch.tensor([ids + [0] * (longest - len(ids)) for ids, _, _ in block]), block)


def _word_around(sentence: str, start: int, end: int) -> str:
    """The lower-case word that holds the characters start to end; the characters themselves if none does."""
    for match in WORD.finditer(sentence):
        if match.start() <= start < match.end():
            return match[0].lower()
    return sentence[start:end]


def _oracle_states(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, scenes: Sequence[Sequence[str]], layers: Sequence[int]
) -> list[Tensor]:
    """[patches of all scenes, d] for each of `layers`: <bos>, the words' own embeddings, the prompt."""
    import torch

    prompt = tokenizer(PROMPT, add_special_tokens=False)["input_ids"]
    ids = [[1, *(word_token(tokenizer, name) or 0 for name in scene), *prompt] for scene in scenes]
    with torch.inference_mode():
        hidden = model(input_ids=torch.tensor(ids), output_hidden_states=True).hidden_states
    return [hidden[layer][:, 1 : 1 + len(scenes[0])].flatten(0, 1).float() for layer in layers]


def _nearest(queries: Tensor, contexts: Contexts, k: int = 5, rows: int = 512) -> list[list[str]]:
    """The words of the k nearest contexts of each query, over all contextual layers."""
    import torch

    unit = torch.nn.functional.normalize(queries, dim=-1)
    found: list[list[str]] = []
    for block in unit.split(rows):
        best = [torch.topk(block @ layer.T, k) for layer in contexts.states]
        values, places = torch.cat([top.values for top in best], 1), torch.cat([top.indices for top in best], 1)
        chosen = places.gather(1, values.topk(k).indices)
        found += [[contexts.words[place] for place in row] for row in chosen.tolist()]
    return found
