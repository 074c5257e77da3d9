"""What a corpus's `source` may say, and what is said of what it may not."""

import sys
from pathlib import Path

import pytest

from latentlens_dag.corpus import TextSource, read_texts
from latentlens_dag.dag.components import CorpusSource
from latentlens_dag.errors import UserError


@pytest.fixture(autouse=True)
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package that must not be imported, with data files; beside it a file that is not the package's."""
    folder = tmp_path / "some_corpus"
    folder.mkdir()
    (folder / "__init__.py").write_text("raise RuntimeError('imported')")
    (folder / "sentences.txt").write_text("One.\nTwo.\n")
    (folder / "rows.jsonl").write_text('{"said": "Three."}\n')
    (tmp_path / "outside.txt").write_text("No.\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    return folder


@pytest.mark.parametrize(
    ("name", "column", "kind", "texts"),
    [("sentences.txt", None, "lines", ["One.", "Two."]), ("rows.jsonl", "said", "jsonl", ["Three."])],
)
def test_a_file_of_a_package_is_read_without_importing_it(
    package: Path, name: str, column: str | None, kind: str, texts: list[str]
) -> None:
    source = CorpusSource(package="some_corpus", file=name, column=column).text_source("Corpus c")
    assert source == TextSource(kind, package / name, column)  # type: ignore[arg-type]
    assert list(read_texts(source)) == texts
    assert "some_corpus" not in sys.modules


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, r"exactly one of lines, csv, jsonl, parquet, package; it has none"),
        ({"lines": "a.txt", "csv": "a.csv"}, r"it has lines, csv"),
        ({"package": "some_corpus"}, r"`package` and `file`, a file inside of it, go together"),
        ({"lines": "a.txt", "file": "a"}, r"`package` and `file`"),
        ({"package": "no_such_package", "file": "a"}, r"no_such_package` of Corpus c is no installed package"),
        ({"package": "os.path", "file": "a"}, r"is no installed package"),
        ({"package": "some_corpus", "file": "../outside.txt"}, r"is not inside the package some_corpus"),
        ({"package": "some_corpus", "file": "other.txt"}, r"`source.file` of Corpus c: .*other\.txt does not exist"),
        ({"package": "some_corpus", "file": "rows.jsonl"}, r"rows\.jsonl is a table: say its `column`"),
        ({"package": "some_corpus", "file": "sentences.txt", "column": "x"}, r"has lines, no columns"),
        ({"csv": "missing.csv", "column": "x"}, r"`source.csv` of Corpus c: missing\.csv does not exist"),
    ],
)
def test_a_source_that_says_too_much_or_too_little_is_told_so(fields: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        CorpusSource(**fields).text_source("Corpus c")  # type: ignore[arg-type]
