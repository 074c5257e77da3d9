"""Texts of labels: names, counts, shares."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

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


def answer_count(k: int | None) -> str:
    """What people call the first k answers."""
    return "all answers" if k is None else "the nearest answer" if k == 1 else f"{k} answers"


def interval_text(ends: Mapping[str, float | None], sign: str = "") -> str:
    """A row's low and high in percent: 1.2 to 3.4 %; a dash where one image says nothing about others."""
    low, high = ends["low"], ends["high"]
    return "–" if low is None or high is None else f"{100 * low:{sign}.1f} to {100 * high:{sign}.1f} %"


def signed_interval(ends: Mapping[str, float | None]) -> str:
    """Of a difference, in percentage points: +1.2 to +3.4 points."""
    return interval_text(ends, "+").replace("%", "points")


def escape_markdown(text: str) -> str:
    """Text from data or an address, safe from being read as Markdown: links, pictures, formulas."""
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", text)
