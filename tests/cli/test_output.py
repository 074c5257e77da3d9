"""Tables as text: whole, plain and the same wherever they go."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from latentlens_dag.cli.output import bytes_progress, one_line, table_text
from tests.helpers.small_dataset import write_warehouse

MAIN = [sys.executable, "-c", "from latentlens_dag.cli.main import main; main()"]
TABLE = {"left": ["name", "text"], "least": {"rows": 8}}
HEADERS = ["name", "rows", "text"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    write_warehouse(folder / "warehouse")
    return folder


def test_a_table_has_columns_as_wide_as_their_cells_and_no_blanks_at_the_ends_of_lines() -> None:
    assert table_text(HEADERS, [["a", "1", "x"], ["long name", "1,000", ""]], None, **TABLE).split("\n") == [
        "name           rows  text",
        "a                 1  x",
        "long name     1,000",
    ]


def test_wide_characters_take_two_places() -> None:
    assert table_text(HEADERS, [["日本", "1", "x"]], None, **TABLE).split("\n")[1] == "日本         1  x"


def test_markup_and_emoji_codes_in_data_come_out_as_they_are() -> None:
    data = "[bold]x[/bold] [/] :smile: [link=a]b"
    assert table_text([data], [[data]], None, left=[data]).split("\n") == [data, data]


@pytest.mark.parametrize("width", [20, 45, 80])
def test_a_table_that_is_too_wide_for_the_terminal_is_folded_and_loses_nothing(width: int) -> None:
    rows = [["n" * 30, "123,456,789", " ".join(f"word{number}" for number in range(40))]]
    text = table_text(HEADERS, rows, width, **TABLE)
    assert max(map(len, text.split("\n"))) <= max(width, 30)  # ten characters a column at least
    cut = [line for line in text.split("\n")[1:] if "word" in line]
    for cell in rows[0]:
        assert all(text.count(character) >= cell.count(character) for character in set(cell) - {" "})
    assert cut and "…" not in text


def test_many_columns_on_a_narrow_terminal_are_all_there() -> None:
    text = table_text([f"c{number}" for number in range(40)], [[f"v{number}" for number in range(40)]], 80)
    assert text.split() == [f"c{number}" for number in range(40)] + [f"v{number}" for number in range(40)]


def test_a_pipe_gets_the_same_bytes_whatever_the_terminal_was(home: Path) -> None:
    text = "[bold]" + "word " * 80
    asked = ["query", f"SELECT '{text}' AS text, 1.5 AS number, NULL AS nothing"]
    outs = []
    for settings in ({}, {"COLUMNS": "20"}, {"FORCE_COLOR": "1", "TERM": "dumb"}, {"TTY_COMPATIBLE": "1"}):
        environment = {**os.environ, "LATENTLENS_HOME": str(home), **settings}
        outs.append(subprocess.run([*MAIN, *asked], capture_output=True, env=environment, check=True).stdout)
    assert len(set(outs)) == 1
    assert outs[0].decode().split("\n")[1] == f"{text}     1.5  null"


def test_a_table_of_a_file_is_not_folded(home: Path, tmp_path: Path) -> None:
    asked = ["query", f"SELECT '{'word ' * 80}' AS text", "--output", str(tmp_path / "table.txt")]
    subprocess.run([*MAIN, *asked], env={**os.environ, "LATENTLENS_HOME": str(home)}, check=True)
    assert len((tmp_path / "table.txt").read_text().split("\n")) == 3


def test_progress_of_bytes_is_shown_on_a_terminal_only_and_gone_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    shown = {}
    for kind, quiet in ((Terminal, False), (Terminal, True), (io.StringIO, False)):
        stream = kind()
        monkeypatch.setattr(sys, "stderr", stream)
        with bytes_progress(quiet) as progress:
            progress(500, 1000)
        shown[kind, quiet] = stream.getvalue()
    assert "0.5/1.0 kB" in shown[Terminal, False] and shown[Terminal, False].endswith("\x1b[2K")
    assert shown[Terminal, True] == shown[io.StringIO, False] == ""


def test_a_text_of_data_becomes_one_line_without_control_characters() -> None:
    assert one_line("a\nb\x1b[2J\t\x85c\u2028d") == "a b\ufffd[2J\ufffd\ufffdc\ufffdd"
