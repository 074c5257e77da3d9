"""As `torchvision.transforms`."""

from torchvision.transforms.v2.functional import InterpolationMode

__all__ = ["InterpolationMode"]
