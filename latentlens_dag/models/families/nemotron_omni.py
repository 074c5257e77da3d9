"""Nemotron Nano Omni: the image is squashed to a grid of whole cells, within limits of the number of patches.

Note: the upper limit grows with the number of images only if the context is shorter than published, so the map of one
image holds for several. The image processor of transformers needs torchvision, so this module has a replacement.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from latentlens_dag.models.families.pillow import scaled, with_pillow
from latentlens_dag.models.families.token_map import TokenMap, grid_map


def mend(model: Any) -> None:
    """Let the model give the unembedding, which transformers 5.24 looks for beside its language model, not in it."""
    model.get_output_embeddings = model.language_model.get_output_embeddings


def region_map(processor: Any, config: Any, width: int, height: int) -> TokenMap:
    """The boxes of the visual tokens of an image of `width` x `height` pixels, row by row."""
    rows, columns = _patches(processor.image_processor, width, height)
    merged = round(1 / processor.image_processor.downsample_ratio)
    return grid_map(rows // merged, columns // merged, (0, 0, width, height))


def _patches(images: Any, width: int, height: int, together: int = 1) -> tuple[int, int]:
    """Rows and columns of patches of one of `together` images, as an image processor chooses them."""
    merged, least = round(1 / images.downsample_ratio), images.min_num_patches
    most = max((images.max_model_len - 4) * merged**2, least * together)
    most = max(min(most, images.max_num_patches) if images.max_num_patches else most, least)
    rows, columns = (round(length / images.patch_size + 0.5) for length in (height, width))
    shrunk = min(math.sqrt(most / (rows * columns)), 1.0)
    rows, columns = math.floor(shrunk * rows), math.floor(shrunk * columns)
    if most > least > rows * columns:
        enlarged = math.sqrt(least / (rows * columns))
        rows, columns = math.ceil(enlarged * rows), math.ceil(enlarged * columns)
    rows = _whole_cells(rows, columns, merged, most)
    return rows, _whole_cells(columns, rows, merged, most)


def _whole_cells(length: int, other: int, merged: int, most: int) -> int:
    """A length in patches as a multiple of `merged`: the next one, or the one before if that makes too many patches."""
    longer = length + -length % merged
    return longer if longer == length or longer * other <= most else max(merged, length - length % merged)


def processor_class() -> Any:
    """The NemotronH_Omni_Reasoning_V3Processor of transformers for images and text, without torchvision."""
    from transformers import BatchFeature
    from transformers.image_processing_backends import PilBackend
    from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD, PILImageResampling, SizeDict
    from transformers.models.nemotron_h_omni.processing_nemotron_h_omni import NemotronH_Omni_Reasoning_V3Processor
    from transformers.processing_utils import ProcessorMixin

    class NemotronH_Omni_Reasoning_V3ImageProcessorPil(PilBackend):  # type: ignore[misc]
        do_rescale = do_normalize = do_convert_rgb = True
        resample = PILImageResampling.BICUBIC
        image_mean, image_std = OPENAI_CLIP_MEAN, OPENAI_CLIP_STD
        patch_size, downsample_ratio = 16, 0.5
        min_num_patches, max_num_patches, max_model_len = 1024, 13312, 16384
        model_input_names = ["pixel_values", "image_grid_hw"]  # noqa: RUF012

        def __init__(self, norm_mean: Any = None, norm_std: Any = None, **kwargs: Any) -> None:
            published = {"image_mean": norm_mean, "image_std": norm_std}
            super().__init__(**{name: value for name, value in published.items() if value is not None} | kwargs)

        def _preprocess(self, images: list[Any], return_tensors: Any = None, **kwargs: Any) -> Any:
            patches, grids = [], []
            for image in images:
                grid = _patches(self, image.shape[2], image.shape[1], len(images))
                height, width = (count * self.patch_size for count in grid)
                resized = self.resize(image, SizeDict(height=height, width=width), kwargs["resample"])
                pixels = scaled(self, resized, kwargs)
                cut = pixels.reshape(3, grid[0], self.patch_size, grid[1], self.patch_size).transpose(1, 3, 0, 2, 4)
                patches.append(cut.reshape(grid[0] * grid[1], -1))
                grids.append(grid)
            data = {"pixel_values": np.concatenate(patches), "image_grid_hw": np.array(grids)}
            return BatchFeature(data, tensor_type=return_tensors)

    class ForImages(NemotronH_Omni_Reasoning_V3Processor):  # type: ignore[misc]
        def __init__(  # type: ignore[no-untyped-def]
            self, image_processor, tokenizer, chat_template: str | None = None, **kwargs
        ) -> None:
            tokens = {"image_token": "<image>", "video_token": "<video>", "audio_token": "<so_embedding>"}
            ends = {"image_start_token": "<img>", "image_end_token": "</img>"}
            for name, token in (tokens | ends).items():
                setattr(self, name, getattr(tokenizer, name, token))
            for name in tokens:
                setattr(self, f"{name}_id", tokenizer.convert_tokens_to_ids(getattr(self, name)))
            ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=chat_template)

    ForImages.__name__ = NemotronH_Omni_Reasoning_V3Processor.__name__
    return with_pillow(ForImages, NemotronH_Omni_Reasoning_V3ImageProcessorPil)
