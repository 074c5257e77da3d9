"""Mistral 3, Pixtral and LightOnOCR: the image is squashed to whole cells, whose rows end with [IMG_BREAK].

The breaks, which LightOnOCR has none of, are tokens of the text, not visual ones. The PixtralProcessor of transformers
cannot be imported without torchvision, though it does not need it, so this module has a replacement.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from latentlens_dag.models.families.token_map import TokenMap, grid_map


def region_map(processor: Any, config: Any, width: int, height: int) -> TokenMap:
    """The boxes of the visual tokens of an image of `width` x `height` pixels, row by row."""
    from transformers.models.pixtral.image_processing_pil_pixtral import get_resize_output_image_size

    cell = processor.patch_size * processor.spatial_merge_size
    # LightOnOCR resizes to whole patches; the last ones may then be in no cell.
    multiple = dict(processor.image_processor.patch_size)["height"] if config.model_type == "lighton_ocr" else cell
    shape = np.broadcast_to(np.uint8(0), (3, height, width))  # an image of this shape
    side = processor.image_processor.size["longest_edge"]
    resized_height, resized_width = get_resize_output_image_size(shape, side, multiple, "channels_first")
    rows, columns = resized_height // cell, resized_width // cell
    covered = width * columns * cell / resized_width, height * rows * cell / resized_height
    return grid_map(rows, columns, (0, 0, *covered))


def processor_of_config(source: Path, config: Any) -> Any:
    """The processor of a folder without processor_config.json: its sizes are those of the model's config.

    Note: of a LLaVA with this vision tower, transformers would load the processor of LLaVA.
    """
    processor = processor_class().from_pretrained(source)
    processor.patch_size = config.vision_config.patch_size
    processor.spatial_merge_size = getattr(config, "spatial_merge_size", 1)
    return processor


def processor_class() -> Any:
    """The PixtralProcessor of transformers for images and text, without torchvision."""
    from transformers.processing_utils import ProcessorMixin

    class PixtralProcessor(ProcessorMixin):  # type: ignore[misc]
        def __init__(  # type: ignore[no-untyped-def]
            self,
            image_processor=None,
            tokenizer=None,
            patch_size: int = 16,
            spatial_merge_size: int = 1,
            chat_template: str | None = None,
            image_token: str = "[IMG]",
            image_break_token: str = "[IMG_BREAK]",
            image_end_token: str = "[IMG_END]",
            **kwargs,
        ) -> None:
            super().__init__(image_processor, tokenizer, chat_template=chat_template)
            self.patch_size, self.spatial_merge_size = patch_size, spatial_merge_size
            tokens = [image_token, image_break_token, image_end_token]
            self.image_token, self.image_break_token, self.image_end_token = tokens
            ids = tokenizer.convert_tokens_to_ids(tokens)
            self.image_token_id, self.image_break_token_id, self.image_end_token_id = ids

        @property
        def image_token_ids(self) -> list[int]:
            return [self.image_token_id, self.image_break_token_id, self.image_end_token_id]

        @property
        def model_input_names(self) -> list[str]:
            own = self.tokenizer.model_input_names + self.image_processor.model_input_names
            return [*own, "image_sizes"]

        def _process_images(self, images: Any, **kwargs: Any) -> Any:
            return super()._process_images(
                images, **{**kwargs, "patch_size": self.patch_size * self.spatial_merge_size}
            )

        def replace_image_token(self, image_inputs: Any, image_idx: int, **kwargs: Any) -> str:
            cell = self.patch_size * self.spatial_merge_size
            height, width = (int(side) // cell for side in image_inputs["image_sizes"][image_idx])
            rows = [self.image_token * width] * height
            return self.image_break_token.join(rows) + self.image_end_token

    return PixtralProcessor
