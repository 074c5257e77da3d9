"""How much a defs.yaml may become: an alias repeats what it names, and eight levels of them are more than memory."""

from __future__ import annotations

from pathlib import Path

import yaml

from latentlens_dag.errors import UserError

MOST_BYTES = 4 << 20
MOST_VALUES = 100_000
"""Of a file, with what aliases repeat."""


def check_size(text: str, file: Path) -> None:
    """Refuse a file that is too long, or whose aliases repeat too much or themselves.

    Raises:
        UserError: see above.
        yaml.YAMLError, RecursionError: where it is not YAML, or nested too deeply.
    """
    if len(text) > MOST_BYTES:
        raise UserError(f"{file} has more than {MOST_BYTES:,} characters: it cannot be a declaration of components.")
    if "*" not in text:  # no alias
        return
    known: dict[int, int | None] = {}
    values = sum(
        _values(node, known, file) for node in yaml.compose_all(text, Loader=yaml.SafeLoader) if node is not None
    )
    if values > MOST_VALUES:
        raise UserError(
            f"{file} has {values:,} values where its aliases (`*name`) are written out, and {MOST_VALUES:,} are the "
            "most. Write out what is meant without aliases of aliases."
        )


def _values(node: yaml.Node, known: dict[int, int | None], file: Path) -> int:
    """The number of values in a node; each is counted once, however often it is repeated."""
    if id(node) in known:
        found = known[id(node)]
        if found is None:
            raise UserError(
                f"{file}: an alias (`*name`) in line {node.start_mark.line + 1} repeats what it is part of."
            )
        return found
    known[id(node)] = None
    parts: list[yaml.Node] = []
    if isinstance(node, yaml.SequenceNode):
        parts = node.value
    elif isinstance(node, yaml.MappingNode):
        parts = [part for pair in node.value for part in pair]
    known[id(node)] = found = 1 + sum(_values(part, known, file) for part in parts)
    return found
