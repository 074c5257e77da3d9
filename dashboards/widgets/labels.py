"""How pages name things."""

from __future__ import annotations

import re

_LENSES = {"latentlens": "LatentLens", "embeddinglens": "EmbeddingLens", "logitlens": "LogitLens"}


def lens_name(lens: str) -> str:
    """A lens as people write it."""
    return _LENSES.get(lens, lens)


def counted(count: int, one: str, many: str | None = None) -> str:
    """A count and what is counted: 1 patch, 2 patches."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def percent(share: float) -> str:
    """A share of 0..1 in percent: 80 %."""
    return f"{100 * share:.0f} %"


def escape_markdown(text: str) -> str:
    """Text from data or an address for Markdown, which would turn it into links, pictures or formulas."""
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", text)
