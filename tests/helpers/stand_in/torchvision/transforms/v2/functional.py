"""As `torchvision.transforms.v2.functional`: images are tensors [.., C, H, W]."""

from enum import Enum

import numpy as np
import torch
from torch import Tensor


class InterpolationMode(Enum):
    """How pixels between pixels are found."""

    NEAREST = "nearest"
    NEAREST_EXACT = "nearest-exact"
    BILINEAR = "bilinear"
    BICUBIC = "bicubic"
    BOX = "box"
    HAMMING = "hamming"
    LANCZOS = "lanczos"


def pil_to_tensor(image: object) -> Tensor:
    """The pixels of a picture: uint8 [C, H, W]."""
    pixels = torch.from_numpy(np.array(image))
    return pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1).contiguous()


def grayscale_to_rgb(image: Tensor) -> Tensor:
    """Three equal channels for one."""
    return image.expand(*image.shape[:-3], 3, -1, -1) if image.shape[-3] == 1 else image


_OF_PILLOW = {2: InterpolationMode.BILINEAR, 3: InterpolationMode.BICUBIC}


def resize(
    image: Tensor, size: tuple[int, int], interpolation: InterpolationMode | int, antialias: bool = True
) -> Tensor:
    """Resize; integers are rounded."""
    mode = interpolation if isinstance(interpolation, InterpolationMode) else _OF_PILLOW[interpolation]
    batch = image.reshape(-1, *image.shape[-3:]).float()
    resized = torch.nn.functional.interpolate(batch, tuple(size), mode=mode.value, antialias=antialias)
    if not image.is_floating_point():
        resized = resized.round().clamp(0, 255)
    return resized.to(image.dtype).reshape(*image.shape[:-2], *size)


def normalize(image: Tensor, mean: list[float], std: list[float], inplace: bool = False) -> Tensor:
    """Subtract the mean of each channel and divide by its deviation."""
    shift, scale = (torch.as_tensor(value, dtype=image.dtype)[:, None, None] for value in (mean, std))
    return (image - shift) / scale


def pad(image: Tensor, padding: list[int], fill: object = 0, padding_mode: str = "constant") -> Tensor:
    """Pad left, top, right and bottom; `fill` is ignored, the padding is black."""
    left, top, right, bottom = padding
    return torch.nn.functional.pad(image, (left, right, top, bottom))


def crop(image: Tensor, top: int, left: int, height: int, width: int) -> Tensor:
    """Cut a part out."""
    return image[..., top : top + height, left : left + width]
