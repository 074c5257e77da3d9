"""Muse Spark: images are cut as for Muse Glimmer."""

from __future__ import annotations

from typing import Any

from latentlens_dag.models.families.muse_glimmer import for_images, region_map

__all__ = ["processor_class", "region_map"]


def processor_class() -> Any:
    """The MuseSparkProcessor of transformers for images and text, without torchvision."""
    from transformers.models.muse_spark.processing_muse_spark import MuseSparkProcessor

    return for_images(MuseSparkProcessor)
