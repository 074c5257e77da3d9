"""How pages name things."""

from __future__ import annotations

_LENSES = {"latentlens": "LatentLens", "embeddinglens": "EmbeddingLens", "logitlens": "LogitLens"}


def lens_name(lens: str) -> str:
    """A lens as people write it."""
    return _LENSES.get(lens, lens)


def counted(count: int, one: str, many: str | None = None) -> str:
    """A count and what is counted: 1 patch, 2 patches."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"
