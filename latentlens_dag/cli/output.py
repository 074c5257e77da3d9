"""What the commands share: options, and printing facts as text or JSON.

What a newcomer gets wrong: text from data may hold control characters, and must not drive the terminal.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from latentlens_dag.errors import UserError

CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")
"""What drives a terminal, but for the line feed."""

home_option = click.option("--home", type=click.Path(path_type=Path), help="Folder of results and history.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
studies_argument = click.argument("studies", nargs=-1, metavar="[STUDY ...]")


def print_facts(facts: Any, as_json: bool, text: Callable[[], str]) -> None:
    """Print the facts as JSON, or the text that says them."""
    click.echo(json.dumps(facts, indent=1, default=str) if as_json else text())


def one_line(text: str) -> str:
    """Text from data as one line that drives nothing."""
    return CONTROL.sub("\ufffd", text.replace("\n", " "))


@contextmanager
def write_errors(option: str, path: Path | None) -> Iterator[None]:
    """Tell the user why the file of an option cannot be written."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"`{option} {path}` cannot be written ({error.strerror or error}). Name a file in a folder that exists and "
            "that you may write to, on a disk with room for it."
        ) from error


def bytes_text(count: int) -> str:
    """A size as people write it."""
    unit, name = next(((10**e, n) for e, n in ((9, "GB"), (6, "MB"), (3, "kB")) if count >= 10**e), (1, "bytes"))
    return f"{count / unit:.3g} {name}"


def bytes_progress(quiet: bool) -> Callable[[int, int], None]:
    """A line on the terminal, written over, of the bytes done and the bytes in all; nothing where nobody looks."""
    if quiet or not sys.stderr.isatty():
        return lambda done, total: None
    return lambda done, total: click.echo(
        f"\r\x1b[2K  {done / max(total, 1):.0%} of {bytes_text(total)}\r", nl=False, err=True
    )
