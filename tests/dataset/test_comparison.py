"""Which studies may be compared token by token."""

from pathlib import Path

import polars as pl
import pytest

from latentlens_dag.dataset.comparison import refuse_other_patches
from latentlens_dag.errors import UserError


def _tokens(folder: Path, name: str, grids: dict[str, int]) -> list[Path]:
    """VISUAL_TOKENS of images cut into n x n patches of a square of 12 pixels; a file per image."""
    files = []
    for image, side in grids.items():
        step = 12 / side
        rows = [
            {"image_id": image, "token_index": number, "x0": x * step, "y0": y * step, "x1": (x + 1) * step}
            | {"y1": (y + 1) * step, "view": "global"}
            for number, (y, x) in enumerate((y, x) for y in range(side) for x in range(side))
        ]
        files.append(folder / f"{name}_{image}.parquet")
        pl.DataFrame(rows).write_parquet(files[-1])
    return files


def test_other_grids_of_an_image_that_both_have_are_refused_and_other_images_are_not(tmp_path: Path) -> None:
    first = _tokens(tmp_path, "first", {"a": 3, "b": 4})
    same = _tokens(tmp_path, "same", {"b": 4, "c": 2})
    other = _tokens(tmp_path, "other", {"a": 3, "b": 3})
    refuse_other_patches(("one", "two"), first, same)
    refuse_other_patches(("one", "two"), first, [])
    with pytest.raises(UserError, match=r"one and two cut their images, or texts, into different tokens.*--shares"):
        refuse_other_patches(("one", "two"), first, other)


def test_as_many_tokens_in_other_places_are_others(tmp_path: Path) -> None:
    first, moved = _tokens(tmp_path, "first", {"a": 3}), tmp_path / "moved.parquet"
    pl.read_parquet(first).with_columns(pl.col("x0") + 1).write_parquet(moved)
    with pytest.raises(UserError, match="different tokens"):
        refuse_other_patches(("one", "two"), first, [moved])
