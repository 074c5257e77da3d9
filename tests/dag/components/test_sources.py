"""What a corpus's `source` may say, and what is said of what it may not."""

import sys
from pathlib import Path

import pytest

from latentlens_dag.dag.components.studies import CorpusSource
from latentlens_dag.errors import UserError
from latentlens_dag.hub.datasets import HubColumn
from latentlens_dag.inputs.texts import TextFile, read_texts


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
    assert source == TextFile(kind, package / name, column)  # type: ignore[arg-type]
    assert list(read_texts(source)) == texts
    assert "some_corpus" not in sys.modules


COMMIT = "0123456789abcdef0123456789abcdef01234567"
HUB = {"hub": "user/texts", "split": "train", "column": "said", "revision": COMMIT}


@pytest.mark.parametrize("config", [None, "two"])
def test_a_dataset_of_the_hub_is_named_with_all_that_decides_what_is_read(config: str | None) -> None:
    source = CorpusSource(**HUB, config=config).text_source("Corpus c")  # type: ignore[arg-type]
    assert source == HubColumn("user/texts", config, "train", "said", COMMIT)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, r"exactly one of lines, csv, jsonl, parquet, package, hub; it has none"),
        ({"lines": "a.txt", "csv": "a.csv"}, r"it has lines, csv"),
        ({"package": "some_corpus"}, r"`package` and `file`, a file inside of it, go together"),
        ({"lines": "a.txt", "file": "a"}, r"`package` and `file`"),
        ({"package": "no_such_package", "file": "a"}, r"no_such_package` of Corpus c is no installed package"),
        ({"package": "os.path", "file": "a"}, r"is no installed package"),
        ({"package": "some_corpus", "file": "../outside.txt"}, r"is not inside the package some_corpus"),
        ({"package": "some_corpus", "file": "other.txt"}, r"`source.file` of Corpus c: .*other\.txt does not exist"),
        ({"package": "some_corpus", "file": "rows.jsonl"}, r"rows\.jsonl is a table: say its `column`"),
        ({"package": "some_corpus", "file": "sentences.txt", "column": "x"}, r"has lines, no columns"),
        ({**HUB, "lines": "a.txt"}, r"it has lines, hub"),
        ({**HUB, "file": "a"}, r"`file` is a file inside a `package`, and not of the Hub"),
        ({"lines": "a.txt", "split": "train"}, r"`split` belongs to a dataset of the Hub, which `hub` names"),
        (
            {**HUB, "hub": "texts"},
            r"`source.hub: texts` of Corpus c is no dataset of the Hub: write it as user/dataset",
        ),
        ({**HUB, "hub": "https://hub.example/datasets/user/texts"}, r"is no dataset of the Hub"),
        ({**HUB, "hub": "../texts"}, r"is no dataset of the Hub"),
        ({**HUB, "split": None}, r"say `split`, `column` and `revision` of user/texts"),
        ({**HUB, "column": None}, r"say `split`, `column` and `revision` of user/texts"),
        ({**HUB, "revision": None}, r"say `split`, `column` and `revision` of user/texts"),
        (
            {**HUB, "revision": "main"},
            r"`source.revision: main` of Corpus c is no full commit\. Branches and tags move",
        ),
        ({**HUB, "revision": COMMIT[:12]}, r"`source.revision: 0123456789ab` of Corpus c is no full commit"),
        ({**HUB, "revision": COMMIT + "0"}, r"is no full commit"),
        ({**HUB, "revision": COMMIT.upper()}, r"is no full commit"),
        ({"csv": "missing.csv", "column": "x"}, r"`source.csv` of Corpus c: missing\.csv does not exist"),
    ],
)
def test_a_source_that_says_too_much_or_too_little_is_told_so(fields: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        CorpusSource(**fields).text_source("Corpus c")  # type: ignore[arg-type]
