"""The components of a defs.yaml: Corpus, ImageSet, TextSet, Index, VisionFeatures, Connector, Study and
Release.

The `type` of a component in a defs.yaml is `latentlens_dag.dag.components.` and one of these names.
"""

from latentlens_dag.dag.components.base import NamedComponent
from latentlens_dag.dag.components.release import Release
from latentlens_dag.dag.components.studies import Corpus, ImageSet, Index, Study, TextSet
from latentlens_dag.dag.components.training import Connector, VisionFeatures

__all__ = [
    "KINDS",
    "Connector",
    "Corpus",
    "ImageSet",
    "Index",
    "NamedComponent",
    "Release",
    "Study",
    "TextSet",
    "VisionFeatures",
]

KINDS: tuple[type[NamedComponent], ...] = (Corpus, ImageSet, TextSet, Index, VisionFeatures, Connector, Study, Release)
"""All of them, in the order of messages."""
