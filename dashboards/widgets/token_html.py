"""HTML about one token. Every text from data passes through `safe` or `html.escape` here."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from latentlens_dag.drawing import VERDICT_COLORS
from latentlens_dag.text.display import clip, excerpt
from widgets.patch_grid import Row, layer_color, similarity, similarity_text


def safe(text: str | None, most: int = 80) -> str:
    """Text from data for HTML: readable, shortened, escaped, and isolated from the direction of its neighbors."""
    return f'<bdi dir="auto">{escape(clip(text, most))}</bdi>'


def neighbors_html(answers: Sequence[Row], layers: Sequence[int]) -> str:
    """The answers of one token at one lens and layer, nearest first.

    Args:
        answers: rows of `token.sql`, in order of rank.
        layers: the study's contextual layers, for the color of the chips.
    """
    if not answers:
        return '<p class="ll-muted">No answers of this lens at this layer.</p>'
    best = max(similarity(row) for row in answers)
    return f'<ol class="ll-neighbors">{"".join(_neighbor(row, layers, best) for row in answers)}</ol>'


def _neighbor(row: Row, layers: Sequence[int], best: float) -> str:
    # A cosine is a share of 1; a logit has no upper bound, so its bar is a share of the best one.
    number = similarity(row)
    share = number if row["cosine"] is not None else number / best if best > 0 else 0.0
    bar = (
        f'<span class="ll-bar" aria-hidden="true"><span style="width:{100 * min(max(share, 0), 1):.0f}%"></span></span>'
    )
    earned = ' <span title="earned the verdict" aria-label="earned the verdict">✓</span>' if row["earned"] else ""
    return (
        f'<li><div class="ll-top"><span class="ll-rank">{row["rank"]}</span>'
        f'<span class="ll-word">{safe((row["word"] or row["token_str"] or "").strip() or "–")}{earned}</span>'
        f'{bar}<span class="ll-number">{similarity_text(row)}</span>{_chip(row["contextual_layer"], layers)}</div>'
        f"{sentence_html(row)}</li>"
    )


def _chip(layer: int | None, layers: Sequence[int]) -> str:
    if layer is None:
        return ""
    color = layer_color(layer, layers or [layer])
    red, green, blue = (int(color[at : at + 2], 16) for at in (1, 3, 5))
    ink = "#ffffff" if 0.299 * red + 0.587 * green + 0.114 * blue < 140 else "#101418"
    return f'<span class="ll-chip" style="background:{color};color:{ink}" title="contextual layer">layer {layer}</span>'


def sentence_html(row: Row) -> str:
    """The sentence of an answer with its word marked; empty for an answer without one."""
    if row["sentence"] is None:
        return ""
    cut = excerpt(row["sentence"], row["char_start"], row["char_end"])
    word = f"<mark>{escape(cut.word)}</mark>" if cut.word else ""
    return f'<p class="ll-sentence" dir="auto">{escape(cut.before)}{word}{escape(cut.after)}</p>'


def verdict_html(verdict: str | None) -> str:
    """A verdict with its color."""
    if not verdict:
        return ""
    color = VERDICT_COLORS.get(verdict, "#b9b9b9")
    dot = f'<span class="ll-dot" style="background:{color}"></span>'
    return f'<span class="ll-verdict">{dot}judged {escape(verdict)}</span>'


def truth_html(regions: Sequence[Row]) -> str:
    """The annotated regions that a patch shows."""
    if not regions:
        return ""
    parts = []
    for region in regions[:4]:
        words = ", ".join(clip(word, 40) for word in region["words"][:8])
        parts.append(f"<b>{safe(region['name'], 40)}</b> <span class='ll-muted'>({escape(words)})</span>")
    return f"Ground truth: {'; '.join(parts)}"


def facts_html(lines: Sequence[tuple[str, str]]) -> str:
    """A list of names and texts."""
    pairs = (f"<dt>{escape(name)}</dt><dd>{safe(value, 300)}</dd>" for name, value in lines)
    return f'<dl class="ll-known">{"".join(pairs)}</dl>'
