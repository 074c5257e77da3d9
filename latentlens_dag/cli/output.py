"""What the commands share: options, and the printing of facts as text, tables or JSON.

Note: text from data may hold control characters, or what a library takes for markup. It goes through `one_line`, and
into tables as plain text.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import click

from latentlens_dag.errors import UserError
from latentlens_dag.storage.paths import refuse_address
from latentlens_dag.text.display import CONTROL

_UNLIMITED = 1_000_000  # characters
_NARROWEST = 10  # characters a column: below, nothing can be read


class LocalPath(click.Path):
    """The path of a file or folder of this machine; an address such as s3://bucket is refused."""

    def __init__(self, *, file_okay: bool = True, dir_okay: bool = True) -> None:
        """Give a `Path`, which need not exist."""
        super().__init__(path_type=Path, file_okay=file_okay, dir_okay=dir_okay)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path, as `click.Path` gives it."""
        if not str(value):
            self.fail("the path is empty: name one, or leave the option out.", param, ctx)
        refuse_address(value, param.opts[-1] if param else "path")
        return super().convert(value, param, ctx)


home_option = click.option("--home", type=LocalPath(), help="Folder of results and history.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
studies_argument = click.argument("studies", nargs=-1, metavar="[NAME ...]")


def print_facts(facts: Any, as_json: bool, text: Callable[[], str]) -> None:
    """Print the facts as JSON, or as text."""
    click.echo(json.dumps(facts, indent=1, default=str) if as_json else text())


def one_line(text: str) -> str:
    """Text from data as one line without control characters."""
    return CONTROL.sub("\ufffd", text.replace("\n", " "))


def terminal_width() -> int | None:
    """The width of the terminal, in characters; None where stdout is none, and lines may have any length."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def table_text(
    headers: Sequence[str],
    rows: Iterable[Sequence[str]],
    width: int | None,
    left: Collection[str] = (),
    least: Mapping[str, int] = MappingProxyType({}),
) -> str:
    """A table as text. Nothing is cut: cells that are too long for `width` are folded.

    Args:
        headers: those in `left` are aligned to the left; `least` is the least width of a column.
        rows: cells, without control characters.
        width: of the terminal; None for a line per row, however long.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for header in headers:
        justify: Literal["left", "right"] = "left" if header in left else "right"
        table.add_column(Text(header), justify=justify, min_width=least.get(header), overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    room = _UNLIMITED if width is None else max(width, _NARROWEST * len(headers))
    text = StringIO()
    Console(file=text, width=room, color_system=None, force_terminal=False).print(table)
    return "\n".join(line.rstrip(" ") for line in text.getvalue().rstrip("\n").split("\n"))


@contextmanager
def write_errors(option: str, path: Path | None) -> Iterator[None]:
    """Turn a file that cannot be written into an error that names the option."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"`{option} {path}` cannot be written ({error.strerror or error}). Name a file in a folder that exists and "
            "that you may write to, on a disk with room for it."
        ) from error


def bytes_text(count: int) -> str:
    """A size with its unit: 13.2 MB."""
    unit, name = next(((10**e, n) for e, n in ((9, "GB"), (6, "MB"), (3, "kB")) if count >= 10**e), (1, "bytes"))
    return f"{count / unit:.3g} {name}"


@contextmanager
def bytes_progress(quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr of the bytes done and in all, gone at the end; none where `quiet`, or stderr is no terminal."""
    if quiet or not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn

    columns = (BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None, visible=False)
        yield lambda done, total: bar.update(task, completed=done, total=total, visible=True)
