"""Texts of labels: names, counts, shares."""

from __future__ import annotations

import re
from collections.abc import Iterable

from latentlens_dag.schema import LENSES, lens_title

lens_name = lens_title


def shared_note(lenses: Iterable[str]) -> str:
    """What the lenses called shared are; empty where there is none among `lenses`."""
    if not any(lens in LENSES and LENSES[lens].declared for lens in lenses):
        return ""
    return "(shared): the lens answers only with tokens that the index has, which are those of LatentLens."


def counted(count: int, one: str, many: str | None = None) -> str:
    """A count with its noun: 1 patch, 2 patches."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def percent(share: float) -> str:
    """A share in 0..1 as a percentage: 80 %."""
    return f"{100 * share:.0f} %"


def escape_markdown(text: str) -> str:
    """Text from data or an address, safe from being read as Markdown: links, pictures, formulas."""
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", text)
