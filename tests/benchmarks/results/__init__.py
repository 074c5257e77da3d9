"""What the benchmarks measured, one JSON file each: the figures, and when, where and under which load.

`write_results` writes one; tests compare the documents with them. Results older than these files were read out of the
documents once, and say so in `recorded`.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent


def write_results(name: str, figures: Mapping[str, Any]) -> None:
    """Write the figures of one benchmark, with the machine and its load."""
    facts = {"recorded": f"by the benchmark on {datetime.datetime.now(datetime.UTC):%Y-%m-%d}", "machine": _machine()}
    text = json.dumps({**facts, "figures": figures}, indent=1, ensure_ascii=False)
    (FOLDER / f"{name}.json").write_text(text + "\n", encoding="utf-8")


def read_results(name: str) -> Any:
    """The figures of one benchmark."""
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))["figures"]


def _machine() -> dict[str, Any]:
    """The processor, how many of it there are, and the mean number of processes that ran or waited in 15 minutes."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    processor = names[0] if names else platform.processor()
    return {"processor": processor, "processors": os.cpu_count(), "load": round(os.getloadavg()[2], 1)}
