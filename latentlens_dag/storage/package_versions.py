"""The packages that decide a result, and their versions."""

from __future__ import annotations

import json
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version

_DECIDING = ("latentlens-dag", "torch", "transformers", "pylance", "pillow")
_RESIZING = "torchvision"
"""Where installed, transformers resizes images by it instead of Pillow."""


def provenance_json(**facts: object) -> str:
    """The facts and the versions of the packages that decide bytes, as JSON."""
    return json.dumps({**facts, "versions": package_versions()}, sort_keys=True)


@cache
def package_versions() -> dict[str, str]:
    """The versions of the packages that decide bytes; cached, since the lookup takes 15 ms."""
    found = {name: version(name) for name in _DECIDING}
    with suppress(PackageNotFoundError):
        found[_RESIZING] = version(_RESIZING)
    return found
