"""LatentLens DAG: what every visual token of a vision-language model means at every layer, in plain language.

The names below are the public interface. They are loaded when first used, so that `import
latentlens_dag` imports neither torch nor dagster.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    __version__: str

    from latentlens_dag.dataset.dataset import open_dataset
    from latentlens_dag.index.contextual_index import ContextualIndex
    from latentlens_dag.models.loading import load_language_model, load_vlm
    from latentlens_dag.models.prompts import Prompt

__all__ = ["ContextualIndex", "Prompt", "__version__", "load_language_model", "load_vlm", "open_dataset"]

_HOMES = {
    "ContextualIndex": "latentlens_dag.index.contextual_index",
    "Prompt": "latentlens_dag.models.prompts",
    "load_language_model": "latentlens_dag.models.loading",
    "load_vlm": "latentlens_dag.models.loading",
    "open_dataset": "latentlens_dag.dataset.dataset",
}


def __getattr__(name: str) -> object:
    if name == "__version__":
        return _version()
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version  # a tenth of a second, in which Ctrl-C may come

    try:
        return version("latentlens-dag")
    except PackageNotFoundError:  # a source tree that was never installed
        return "0"


def __dir__() -> list[str]:
    return sorted(__all__)
