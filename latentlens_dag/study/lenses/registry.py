"""The lenses by name.

A new lens is a line of `schema.LENSES` and a module of this package: the module has the lens's name, its class the
lens's title. Assets, tables, cards, figures and pages take it from there.
"""

from importlib import import_module

from latentlens_dag.schema import LENSES
from latentlens_dag.study.lenses.base import Lens


def lens_class(name: str) -> type[Lens]:
    """The class of a lens of `schema.LENSES`."""
    lens: type[Lens] = getattr(import_module(f"{__package__}.{name}"), LENSES[name].title)
    return lens
