"""The lenses by name.

A new lens is a line of `schema.DECLARED_LENSES` and a module of this package: the module has the lens's name, its class
the lens's title. Assets, tables, cards, figures and pages take it from there.
"""

from importlib import import_module

from latentlens_dag.schema import DECLARED_LENSES, LENSES
from latentlens_dag.study.lenses.base import Lens


def lens_class(name: str) -> type[Lens]:
    """The class of a lens of `schema.LENSES`; lenses that differ in their candidates alone have one class."""
    declared = DECLARED_LENSES[LENSES[name].declared or name]
    lens: type[Lens] = getattr(import_module(f"{__package__}.{declared.name}"), declared.title)
    return lens
