"""MiniMax M3: the image is cut as for Qwen2-VL; its own image processor needs torchvision, so this is a replacement."""

from __future__ import annotations

from typing import Any

from latentlens_dag.models.families.pillow import with_pillow
from latentlens_dag.models.families.qwen_vl import region_map

__all__ = ["processor_class", "region_map"]


def processor_class() -> Any:
    """The MiniMaxM3VLProcessor of transformers for images and text, without torchvision."""
    from transformers.models.minimax_m3_vl.processing_minimax_m3_vl import MiniMaxM3VLProcessor
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    class MiniMaxM3VLImageProcessorPil(Qwen2VLImageProcessorPil):  # type: ignore[misc]
        size = {"shortest_edge": 4 * 28 * 28, "longest_edge": 451584}  # noqa: RUF012

        def __init__(self, size: Any = None, **kwargs: Any) -> None:
            # The published [672, 672] was never used.
            super().__init__(size=None if size == [672, 672] else size, **kwargs)

    return with_pillow(MiniMaxM3VLProcessor, MiniMaxM3VLImageProcessorPil)
