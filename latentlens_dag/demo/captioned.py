"""Pictures of the demo world with captions of parts of them, for connectors that a project trains.

Each picture has a caption of the whole and several of what is visible in some of its patches: random ones, a window,
patches of one region, or a few. They are ordinary files: any image set takes them.
"""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from latentlens_dag.demo.connector import Kind, choose_patches
from latentlens_dag.demo.scenes import (
    GRID,
    PATCHES,
    Region,
    SceneSource,
    regions_table,
    scene_regions,
    scene_truth,
    training_seed,
    visible_view,
)
from latentlens_dag.demo.text_captions import caption
from latentlens_dag.errors import UserError
from latentlens_dag.inputs.captions import MOST_CAPTIONS
from latentlens_dag.storage.files import atomic_path

_KINDS: dict[Kind, float] = {"subset": 0.40, "window": 0.20, "region": 0.27, "few": 0.13}
_SCHEMA = pa.schema([("file_name", pa.string()), ("caption", pa.string()), ("patches", pa.list_(pa.int32()))])


def write_captioned_scenes(source: SceneSource, folder: Path, count: int, parts: int, seed: int = 0) -> None:
    """Write `folder`/scenes, regions.parquet and captions.parquet; equal arguments give equal bytes.

    Args:
        source: of the scenes.
        folder: is made.
        count: how many scenes, of those that connectors are trained on: none is a held-out one.
        parts: captions of parts of each.
        seed: of the scenes and of what the captions are about.

    Raises:
        UserError: for no scenes, or more captions of one than an image set takes.
    """
    if count < 1 or not 0 <= parts < MOST_CAPTIONS:
        raise UserError(
            f"{count:,} scenes with captions of {parts:,} parts each were requested: there must be at least one scene, "
            f"and from 0 to {MOST_CAPTIONS - 1:,} parts."
        )
    (folder / "scenes").mkdir(parents=True, exist_ok=True)
    regions, captions = list[Region](), list[dict[str, object]]()
    for index in range(count):
        name, rng = f"{index:06d}.png", random.Random(f"{seed} {index}")
        scene, rendered = source(training_seed("connector", seed, index))
        rendered.image.save(folder / "scenes" / name)
        regions += scene_regions(source.world, rendered, scene, name)
        truth = scene_truth(rendered, scene)
        whole = caption(source.world, visible_view(truth), rng)
        captions.append({"file_name": name, "caption": whole, "patches": None})
        for _ in range(parts):
            kind, size, window = _choice(rng)
            kept = np.flatnonzero(choose_patches(kind, truth, size, window, rng))
            text = caption(source.world, visible_view(truth, np.isin(np.arange(PATCHES), kept)), rng)
            captions.append({"file_name": name, "caption": text, "patches": kept.tolist()})
    for name, table in (("regions", regions_table(regions)), ("captions", pa.Table.from_pylist(captions, _SCHEMA))):
        with atomic_path(folder / f"{name}.parquet") as partial:
            pq.write_table(table, partial, compression="zstd")


def _choice(rng: random.Random) -> tuple[Kind, int, tuple[int, int]]:
    """What a caption is about: the kind, the number of patches and, for a window, its height and width."""
    kind = rng.choices(list(_KINDS), list(_KINDS.values()))[0]
    window = (rng.randint(2, GRID * 3 // 5), rng.randint(2, GRID * 3 // 5))
    counts = {
        "subset": rng.choice((12, 24, 48, 72, 100)),
        "window": window[0] * window[1],
        "region": rng.randint(1, 4),
        "few": rng.randint(1, 8),
    }
    return kind, counts[kind], window
