"""What CONTRIBUTING says of a new family: a module, a line in the registry and a builder are all it takes."""

import sys
from functools import partial
from importlib import import_module
from pathlib import Path

import pytest

from latentlens_dag.models.families import registry
from latentlens_dag.models.loading import load_vlm
from latentlens_dag.models.localization import localization
from latentlens_dag.models.self_checks import noise_image
from latentlens_dag.testing import families, tiny_vlm
from latentlens_dag.testing.models import tiny_llava

MODULE = '''"""A new family: the middle of the image, in a grid."""

from latentlens_dag.models.families.token_map import grid_map


def region_map(processor, config, width, height):
    side, cells = min(width, height), config.vision_config.image_size // config.vision_config.patch_size
    left, top = (width - side) / 2, (height - side) / 2
    return grid_map(cells, cells, (left, top, left + side, top + side))
'''


def test_a_module_a_line_and_a_builder_make_a_family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """LLaVA, as if it were not known."""
    monkeypatch.delitem(registry._MODULES, "llava")
    monkeypatch.delitem(families.BUILDERS, "llava")
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "new_family.py").write_text(MODULE)
    monkeypatch.setitem(registry._MODULES, "llava", "new_family")
    monkeypatch.setitem(families.BUILDERS, "llava", partial(tiny_llava, blocks=2))
    vlm = load_vlm(tiny_vlm("llava", tmp_path / "model"), device="cpu")
    for size in [(150, 100), (90, 140), (96, 96)]:
        check = localization(vlm, noise_image(*size), per_view=None)
        assert (check.passed, check.figure) == (True, 1.0)
    assert "new_family" in sys.modules


def test_every_module_with_a_region_map_is_in_the_registry_and_has_a_title() -> None:
    folder = Path(registry.__file__).parent
    names = {f"{registry.__package__}.{file.stem}" for file in folder.glob("[!_]*.py")} - {registry.__name__}
    maps = {name for name in names if hasattr(import_module(name), "region_map")}
    assert maps == set(registry._MODULES.values())
    for name in maps:
        assert str(import_module(name).__doc__).partition("\n\n")[0]  # which docs/families.md shows


def test_every_builder_is_of_a_family_of_transformers_or_named_as_a_variant_of_one() -> None:
    from transformers import CONFIG_MAPPING

    assert set(families.BUILDERS) - {"pixtral"} <= set(CONFIG_MAPPING)
