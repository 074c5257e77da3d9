"""The features of a set of images on disk: computed once, read row by row while a connector is trained.

A file of safetensors holds those of some images in their order. The features of 100,000 images of 576 tokens take 118
GB in bfloat16, so files are mapped into memory and an image's rows are copied when a step needs them.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentlens_dag.errors import UserError
from latentlens_dag.storage.files import atomic_path

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from latentlens_dag.training.vision_encoder import VisionEncoder

_IMAGES_AT_ONCE = 64
_ROWS = "features"


def write_features(encoder: VisionEncoder, images: Iterable[Image], out: Path) -> int:
    """Write the features of images, in their order, to a file; give the number of images.

    Raises:
        UserError: if there is no image, or a feature is not a finite number.
    """
    import torch
    from safetensors.torch import save_file

    left = iter(images)
    parts = [encoder.features(some) for some in iter(lambda: list(islice(left, _IMAGES_AT_ONCE)), [])]
    if not parts:
        raise UserError(f"There are no images of which {encoder.name} could give features.")
    rows = torch.cat(parts)
    if not torch.isfinite(rows).all():
        raise UserError(f"{encoder.name} gives features that are not finite numbers: its weights may be damaged.")
    with atomic_path(out) as partial:
        save_file({_ROWS: rows}, partial)
    return len(rows)


def _opened(file: Path) -> Any:
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(file, framework="pt").get_slice(_ROWS)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file} cannot be read as features of images: {error}. Write it again.") from error


class Features:
    """The features of all images of some files, or of chosen ones, by number."""

    def __init__(self, files: Sequence[Path], chosen: Sequence[int] | None = None) -> None:
        """Open files that `write_features` wrote; of `chosen` numbers among all of their images, only those.

        Raises:
            UserError: if there is none, one cannot be read, or they differ in the number of tokens or the width.
        """
        self._slices = [_opened(file) for file in files]
        shapes = [slice_.get_shape() for slice_ in self._slices]
        if len({tuple(shape[1:]) for shape in shapes}) != 1 or any(len(shape) != 3 or not shape[0] for shape in shapes):
            raise UserError(
                f"The features in {[str(file) for file in files]} are not those of images by one encoder, [images, "
                f"tokens, width]: {shapes}."
            )
        self._ends = list(accumulate(shape[0] for shape in shapes))
        self.tokens, self.hidden = shapes[0][1:]
        self._chosen: Sequence[int] = range(self._ends[-1]) if chosen is None else chosen

    def __len__(self) -> int:
        """The number of images."""
        return len(self._chosen)

    def __getitem__(self, image: int) -> Tensor:
        """The features of an image: bfloat16 [tokens, hidden]."""
        if not 0 <= image < len(self):
            raise IndexError(image)
        number = self._chosen[image]
        file = bisect_right(self._ends, number)
        rows: Tensor = self._slices[file][number - (self._ends[file - 1] if file else 0)]
        return rows

    def sample(self, images: int) -> Tensor:
        """The features of about so many images, evenly spread: bfloat16 [n, hidden]."""
        import torch

        step = max(1, len(self) // images)
        return torch.cat([self[image] for image in range(0, len(self), step)])
