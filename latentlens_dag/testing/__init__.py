"""Tiny random models and projects, made in a second: for our tests and for your own.

The models have random weights, a tokenizer trained on a few sentences, a processor and a chat template,
and load like any model of their family. Note: their answers mean nothing. They are for testing that code reads a
model rightly, not that a model says something.

    from latentlens_dag.testing import tiny_families, tiny_vlm

    @pytest.mark.parametrize("family", tiny_families())
    def test_mine(family, tmp_path):
        vlm = load_vlm(tiny_vlm(family, tmp_path))
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from latentlens_dag.testing.models import CHAT_TEMPLATE, SENTENCES, tiny_llava, tiny_tokenizer
    from latentlens_dag.testing.projects import TINY_STUDY, tiny_families, tiny_project, tiny_vlm

__all__ = [
    "CHAT_TEMPLATE",
    "SENTENCES",
    "TINY_STUDY",
    "tiny_families",
    "tiny_llava",
    "tiny_project",
    "tiny_tokenizer",
    "tiny_vlm",
]

_HOMES = dict.fromkeys(__all__, "latentlens_dag.testing.projects")
for _name in ("CHAT_TEMPLATE", "SENTENCES", "tiny_llava", "tiny_tokenizer"):
    _HOMES[_name] = "latentlens_dag.testing.models"


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
