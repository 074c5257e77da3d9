"""How pages name things."""

from __future__ import annotations

import re

from latentlens_dag.schema import lens_title

lens_name = lens_title


def counted(count: int, one: str, many: str | None = None) -> str:
    """A count and what is counted: 1 patch, 2 patches."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def percent(share: float) -> str:
    """A share of 0..1 in percent: 80 %."""
    return f"{100 * share:.0f} %"


def plain(text: str) -> str:
    """Text from data or an address for Markdown, which would turn it into links, pictures or formulas."""
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", text)
