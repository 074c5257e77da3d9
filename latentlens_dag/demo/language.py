"""The demo's language model: a tokenizer and a small Llama, trained on generated text.

Byte-level BPE with 4096 entries, in which every judged word is one token wherever it stands, so
that no lens gains from how words are tokenized. The model (hidden 256, 8 layers, untied embeddings,
8.1 M parameters) learns from 3.4 M tokens in 66 minutes on one busy core with AVX2, in float32.

Muon, with batches 1.5 times as large, reached the same loss in half as many steps as AdamW, but in as many minutes.

The documents of step k depend on the seed and k alone, so an interrupted and resumed training gives the
same weights as an uninterrupted one, and no data set is stored.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from latentlens_dag.demo.text import Documents, Lesson, judged_words
from latentlens_dag.demo.text_captions import LEARNED
from latentlens_dag.demo.training import CHECKPOINT, load_checkpoint, resume_checkpoint, save_checkpoint
from latentlens_dag.demo.world import World
from latentlens_dag.device import has_bfloat16
from latentlens_dag.training.schedule import take_step

if TYPE_CHECKING:
    import torch
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

logger = logging.getLogger(__name__)

SPECIALS = ("<pad>", "<bos>", "<eos>", "<image>")
"""Ids 0 to 3."""
VOCABULARY = 4096
TOKENIZER_DOCUMENTS = 40_000
LIST_TOKENS, SET_TOKENS = 18, 36
"""Longest documents of the lessons "lists" and "sets"."""
EMBEDDING_RMS, BLOCK_SCALE = 0.4, 0.4
"""Of the untrained model: RMS of an embedding, and a factor on what each block adds to the residual stream."""


@dataclass(frozen=True)
class Schedule:
    """How long and how fast a language model is trained."""

    steps: int = 2400
    rows: int = 8
    """Sequences per step."""
    row_length: int = 256
    """Tokens per sequence: whole documents, packed."""
    learning_rate: float = 1.5e-3
    warmup: int = 40
    """Steps."""
    weight_decay: float = 0.05
    lists: int = 110
    """First steps, of the lesson "lists", in rows of one or two documents."""
    sets: int = 200
    """The steps after them, of the lesson "sets", in rows of about two documents."""
    copies: int = 130
    """The steps after them, of the lesson "copies", in rows of a quarter of the length."""
    caption_weight: float = 2.0
    """Weight of a caption's tokens in the loss; all other learned tokens have 1."""
    compiled: bool = False
    """Whether torch compiles the blocks: steps take 20 % less time, the start a minute; needs a C++ compiler."""
    save_every_s: float = 60.0

    def lesson(self, step: int) -> tuple[Lesson, int]:
        """The lesson of `step`, and the number of rows that each row is cut into."""
        if step < self.lists:
            return "lists", self.row_length // LIST_TOKENS
        if step < self.lists + self.sets:
            return "sets", self.row_length // SET_TOKENS
        return ("copies", 4) if step < self.lists + self.sets + self.copies else ("all", 1)

    def rate(self, step: int) -> float:
        """Learning rate of `step`: linear warmup, then a cosine to a fiftieth."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        progress = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.learning_rate * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))


def train_tokenizer(world: World, seed: int, documents: int = TOKENIZER_DOCUMENTS) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer in which every judged word of `world` is a single token.

    A space is put before every line, so that the first word of a line is the same token as within
    it. Encoded text starts with <bos>.

    Raises:
        ValueError: if a judged word is more than one token, because it is too rare in the text.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    lines = pre_tokenizers.Split(Regex("\n"), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([lines, pre_tokenizers.ByteLevel(add_prefix_space=True)])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=list(SPECIALS), initial_alphabet=sorted(alphabet), show_progress=False
    )
    tokenizer.train_from_iterator(_tokenizer_text(world, seed, documents), trainer)
    template = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", SPECIALS.index("<bos>"))])
    tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=True), template])
    pad, bos, eos, image = SPECIALS
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=pad, bos_token=bos, eos_token=eos, padding_side="right",
        extra_special_tokens={"image_token": image}, model_max_length=512, clean_up_tokenization_spaces=False,
    )  # fmt: skip
    if split := [word for word in judged_words(world) if word_token(wrapped, word) is None]:
        raise ValueError(
            f"{len(split)} judged words are more than one token of {VOCABULARY}, among them {', '.join(split[:5])}: "
            "let patterns.txt or sentences.txt use them more often."
        )
    return wrapped


def word_token(tokenizer: PreTrainedTokenizerFast, word: str) -> int | None:
    """The token id of `word` as it stands within a sentence; None if it is several tokens."""
    ids = tokenizer(word, add_special_tokens=False)["input_ids"]
    return ids[0] if len(ids) == 1 else None


def new_model(seed: int) -> LlamaForCausalLM:
    """The untrained language model: 8.1 M parameters in float32, weights drawn from `seed`.

    Embeddings start large beside what a block adds, at RMS 0.4. From 0.05 the first block's mean over
    the prefix outweighed the word 150 times, and a "dog" after much "sky" was read as sky.

    The unembedding starts as the embedding in another basis. To repeat a word of its prefix the model
    then has one rotation to learn for all words, not a map for each word; and the word itself is not
    read off its embedding by LogitLens, as it would be with a plain copy.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    pad, bos, eos, _ = range(len(SPECIALS))
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=256,
        intermediate_size=640,
        num_hidden_layers=8,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=512,
        rms_norm_eps=1e-5,
        tie_word_embeddings=False,
        pad_token_id=pad,
        bos_token_id=bos,
        eos_token_id=eos,
        initializer_range=0.05,
    )
    model = LlamaForCausalLM(config)
    rotation = torch.linalg.qr(torch.randn(256, 256)).Q
    embedding = model.model.embed_tokens.weight
    with torch.no_grad():
        model.lm_head.weight.copy_(embedding @ rotation)
        embedding.mul_(EMBEDDING_RMS / config.initializer_range)
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.mul_(BLOCK_SCALE)
            layer.mlp.down_proj.weight.mul_(BLOCK_SCALE)
    return model


def train_language_model(
    world: World, out: Path, seed: int, schedule: Schedule | None = None, resume: bool = True
) -> dict[str, float]:
    """Train tokenizer and language model into `out`, or resume an interrupted training.

    Writes tokenizer and model in Hugging Face format, checkpoint.pt (about once a minute, removed at
    the end) and log.jsonl with step, loss, tokens, tokens_per_s and wall_s.

    Returns:
        The figures of the last logged step; loss is the mean over the steps since the one before.
    """
    import torch

    schedule = schedule or Schedule()
    out.mkdir(parents=True, exist_ok=True)
    tokenizer = _tokenizer_of(world, out, seed)
    model = new_model(seed)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=schedule.learning_rate, betas=(0.9, 0.95), weight_decay=schedule.weight_decay, fused=True
    )
    state: dict[str, Any] = {"step": 0, "tokens": 0, "wall_s": 0.0}
    if resume and (saved := resume_checkpoint(out, {}, model=model, optimizer=optimizer)):
        state = saved
        logger.info("Resumed at step %d.", state["step"])
    figures = _train(model, optimizer, Batches(world, tokenizer, seed, schedule), schedule, state, out)
    model.save_pretrained(out)
    (out / CHECKPOINT).unlink(missing_ok=True)
    return figures


class Batches:
    """Batches of packed documents; the batch of a step depends on the seed and the step alone."""

    def __init__(self, world: World, tokenizer: PreTrainedTokenizerFast, seed: int, schedule: Schedule) -> None:
        """Batches of `schedule`, from the documents of `seed`."""
        lessons: tuple[Lesson, ...] = ("lists", "sets", "copies", "all")
        self.lessons = {lesson: Documents(world, lesson) for lesson in lessons}
        self.tokenizer = tokenizer
        self.first_seed = seed * 10**9
        self.schedule = schedule

    def batch(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids and weights: int64 and float32 [rows, row_length] each, smaller rows in the first lessons.

        A token's weight is its weight in the loss as a target; tokens of weight 0 are only read.

        Rows hold whole documents <bos> ... <eos>, the longest that still fits next, which wastes about
        1 % of the tokens. Positions and attention run on through a row: a document may stand anywhere.
        """
        import torch

        lesson, cuts = self.schedule.lesson(step)
        rows, length = self.schedule.rows * cuts, self.schedule.row_length // cuts
        count = self.schedule.rows * self.schedule.row_length // (8 if lesson in ("lists", "sets") else 20)
        first = self.first_seed + step * 100_000
        documents = self.lessons[lesson]
        tokens = [self.tokens(documents.marked(first + number)) for number in range(max(count, rows))]
        packed = [row + [Token(0, 0.0)] * (length - len(row)) for row in pack(tokens, rows, length)]
        inputs = torch.tensor([[token.id for token in row] for row in packed])
        return inputs, torch.tensor([[token.weight for token in row] for row in packed])

    def tokens(self, marked: str) -> list[Token]:
        """A document's tokens; those of a passage, its first line before a prompt, are read but not learned.

        Visual tokens have no targets either. Learning to predict the shuffled words of passages made
        of each state a mean over the words before, and the word itself was no longer read.
        """
        first, newline, rest = marked.partition("\n")
        if not newline:
            pieces = [(first, 1.0)]
        else:
            pieces = [(piece, float(number % 2)) for number, piece in enumerate(LEARNED.split(first))]
            pieces.append((newline + rest, self.schedule.caption_weight))
        encoded = self.tokenizer([piece.strip(" ") for piece, _ in pieces], add_special_tokens=False)["input_ids"]
        found = [Token(SPECIALS.index("<bos>"), 1.0)]
        for ids, (_, weight) in zip(encoded, pieces, strict=True):
            found += [Token(number, weight) for number in ids]
        return [*found, Token(SPECIALS.index("<eos>"), 1.0)]


class Token(NamedTuple):
    """A token of a document."""

    id: int
    weight: float
    """Its weight in the loss as a target: 0 is read and not learned."""


def pack(documents: Sequence[list[Token]], rows: int, length: int, waiting: int = 24) -> list[list[Token]]:
    """Fill `rows` rows of at most `length` tokens with whole documents.

    Documents come in order, except that up to `waiting` wait for a gap; those longer than a row are left out.
    """
    queue = [document for document in documents if len(document) <= length]
    packed: list[list[Token]] = []
    for _ in range(rows):
        row: list[Token] = []
        while fitting := [tokens for tokens in queue[:waiting] if len(tokens) <= length - len(row)]:
            chosen = max(fitting, key=len) if row else fitting[0]
            queue.remove(chosen)
            row += chosen
        packed.append(row)
    return packed


def load_language_model(folder: Path) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """Model and tokenizer of a folder; of an unfinished training, the weights of its last checkpoint."""
    from transformers import AutoTokenizer, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(folder)
    saved = load_checkpoint(folder)
    if saved is None:
        return LlamaForCausalLM.from_pretrained(folder).eval(), tokenizer
    model = new_model(0)
    model.load_state_dict(saved["model"])
    return model.eval(), tokenizer


def _tokenizer_text(world: World, seed: int, documents: int) -> Iterable[str]:
    """Training text, and each judged word often enough to become one token."""
    made = Documents(world)
    yield from (made.document(seed * 10**9 + number) for number in range(documents))
    yield from (" ".join(judged_words(world)) for _ in range(max(40, documents // 400)))


def _tokenizer_of(world: World, out: Path, seed: int) -> PreTrainedTokenizerFast:
    """The tokenizer already in `out`, or a new one, which is saved there."""
    from transformers import AutoTokenizer

    if (out / "tokenizer.json").exists():
        return AutoTokenizer.from_pretrained(out)
    tokenizer = train_tokenizer(world, seed)
    tokenizer.save_pretrained(out)
    return tokenizer


def _train(
    model: LlamaForCausalLM,
    optimizer: torch.optim.Optimizer,
    batches: Batches,
    schedule: Schedule,
    state: dict[str, Any],
    out: Path,
) -> dict[str, float]:
    """The training loop from `state` to the last step."""
    import torch

    model.train()
    started, saved = time.monotonic() - state["wall_s"], time.monotonic()
    losses: list[float] = []
    figures: dict[str, float] = {}
    compiled = torch.compile(model.model, dynamic=False) if schedule.compiled else model.model
    for step in range(state["step"], schedule.steps):
        blocks = compiled if schedule.lesson(step)[0] == "all" else model.model
        loss, tokens = _step(model, blocks, optimizer, batches.batch(step), schedule.rate(step))
        losses.append(loss)
        state = {"step": step + 1, "tokens": state["tokens"] + tokens, "wall_s": time.monotonic() - started}
        last = step + 1 == schedule.steps
        if last or (step + 1) % 20 == 0:
            figures = {**state, "loss": sum(losses) / len(losses), "tokens_per_s": state["tokens"] / state["wall_s"]}
            _log(out, figures)
            losses = []
        if last or time.monotonic() - saved > schedule.save_every_s:
            weights = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
            save_checkpoint(out, weights | state)
            saved = time.monotonic()
    return figures


def _step(
    model: LlamaForCausalLM,
    blocks: Callable[..., Any],
    optimizer: torch.optim.Optimizer,
    batch: tuple[torch.Tensor, torch.Tensor],
    rate: float,
) -> tuple[float, int]:
    """Take one optimizer step; gives the weighted mean loss in nats per token and the number of learned tokens.

    `blocks` is `model.model`, compiled or not. Logits are computed for learned tokens only.
    """
    import torch

    inputs, weights = batch
    learned = weights[:, 1:] > 0
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=has_bfloat16()):
        logits = model.lm_head(blocks(input_ids=inputs[:, :-1]).last_hidden_state[learned])
    losses = torch.nn.functional.cross_entropy(logits.float(), inputs[:, 1:][learned], reduction="none")
    loss = (losses * weights[:, 1:][learned]).sum() / weights[:, 1:].sum()
    take_step(optimizer, loss, model.parameters(), rate)
    return float(loss.detach()), int(learned.sum())


def _log(out: Path, figures: dict[str, float]) -> None:
    with (out / "log.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({name: round(value, 4) for name, value in figures.items()}) + "\n")
