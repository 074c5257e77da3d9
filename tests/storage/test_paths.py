"""Paths with characters that databases read in addresses, addresses in place of paths, and unusable characters."""

import tempfile
from pathlib import Path

import duckdb
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from latentlens_dag.dataset.dataset import open_dataset
from latentlens_dag.errors import UserError
from latentlens_dag.models.model_ref import model_ref
from latentlens_dag.sql.quoting import file_literal, literal
from latentlens_dag.sql.sandbox import open_file
from latentlens_dag.storage.home import find_home
from latentlens_dag.storage.paths import is_plain, plain_file, plain_path, refuse_address
from tests.helpers.command_line import run_command

ANY_CHARACTER = st.characters(exclude_categories=("Cc", "Cs"), exclude_characters="/\\")
ODD_NAMES = st.text(st.one_of(st.sampled_from("%?#[]*{}'\"&;:~$@! "), ANY_CHARACTER), min_size=1, max_size=40).filter(
    lambda name: name not in {".", ".."} and len(name.encode()) < 200
)
"""Names of folders, mostly of characters that mean something to a shell, a pattern, an address or SQL."""


@settings(max_examples=40, deadline=None)
@given(ODD_NAMES)
@example("what?x")
@example("a%20b#c")
def test_a_database_written_through_a_plain_file_lies_where_its_path_says_and_opens_there(name: str) -> None:
    with tempfile.TemporaryDirectory() as outside:
        folder = Path(outside) / "in" / name
        folder.mkdir(parents=True)
        file = folder / "catalog.duckdb"
        with plain_file(file) as database, duckdb.connect() as connection:
            connection.execute(f"ATTACH {literal(str(database))} AS catalog")
            connection.execute("CREATE TABLE catalog.numbers AS FROM range(100)")
            connection.execute("DETACH catalog")
        assert [path for path in Path(outside).rglob("*") if path.is_file()] == [file]
        with open_file(file, None) as reading:
            assert reading.sql("SELECT count(*) FROM numbers").fetchall() == [(100,)]


def test_a_file_in_sql_is_that_file_where_its_folder_is_a_pattern_of_another_one(tmp_path: Path) -> None:
    for name, number in (("a[b]", 1), ("ab", 2), ("a*", 3), ("a?", 4)):
        (tmp_path / name).mkdir()
        duckdb.sql(f"COPY (SELECT {number} AS number) TO {literal(str(tmp_path / name / 'x.parquet'))}")
        file = file_literal(tmp_path / name / "x.parquet")
        assert duckdb.sql(f"FROM read_parquet({file})").fetchall() == [(number,)]


@pytest.mark.parametrize("name", ["plain", "what?x", "per%cent", "a#b"])
def test_a_plain_path_is_the_same_folder_until_the_block_ends(tmp_path: Path, name: str) -> None:
    (tmp_path / name / "inner").mkdir(parents=True)
    with plain_path(tmp_path / name / "inner") as plain:
        assert is_plain(plain)
        (plain / "file").write_text("here")
        assert (tmp_path / name / "inner" / "file").read_text() == "here"
    assert plain.exists() == (name == "plain")
    assert (tmp_path / name / "inner" / "file").exists()


def test_where_no_temporary_folder_has_a_plain_path_the_error_names_tmpdir(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a%b").mkdir()
    monkeypatch.setattr("latentlens_dag.storage.paths._TEMPORARY", ())
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "a%b"))
    with pytest.raises(UserError, match="TMPDIR"), plain_path(tmp_path / "a%b" / "home"):
        pass


ADDRESSES = ["s3://bucket/home", "gs://bucket/home", "hf://datasets/user/name", "file:///tmp/home", "az://c/x"]


@pytest.mark.parametrize("address", ADDRESSES)
def test_an_address_in_place_of_a_path_is_refused_by_its_scheme_and_nothing_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.chdir(tmp_path)
    scheme = address.split("://", 1)[0]
    for opened in (find_home, open_dataset, model_ref):
        with pytest.raises(UserError, match=f"{scheme}://.* addresses are not supported here"):
            opened(address)
    monkeypatch.setenv("LATENTLENS_HOME", address)
    with pytest.raises(UserError, match=f"LATENTLENS_HOME {scheme}://"):
        find_home()
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("address", ["s3:/bucket/home", "file:///", "file:///tmp//home", "hf:/a/b", "s3://b"])
def test_an_address_is_repeated_as_it_was_written(address: str) -> None:
    with pytest.raises(UserError) as refused:
        refuse_address(address, "--home")
    assert str(refused.value).startswith(f"`--home {address}`: ")


@pytest.mark.parametrize("path", ["a" * 5000, "x/" + "a" * 256, "\u3042" * 86, "ab/" * 1400])
def test_a_path_longer_than_any_file_has_is_refused_as_a_mistake(path: str) -> None:
    for opened in (find_home, open_dataset, model_ref):
        with pytest.raises(UserError, match=r"\.\.\.` has a (name|path) of \d,?\d* bytes, and a file system takes"):
            opened(path)
    refuse_address("a" * 255, "--home")


@pytest.mark.parametrize(
    "arguments",
    [
        ("query", "SHOW TABLES", "--home", "s3://bucket/home"),
        ("query", "SHOW TABLES", "--data", "s3://bucket/home"),
        ("query", "SHOW TABLES", "--output", "s3://bucket/x.csv"),
        ("build", "--home", "s3://bucket/home"),
        ("summary", "demo", "--picture", "s3://bucket/x.png"),
        ("diff", "demo", "demo", "--second-home", "s3://bucket/home"),
        ("pull", "user/name", "--output", "s3://bucket/x"),
        ("pull", "s3://bucket/x"),
        ("browse", "s3://bucket/home"),
        ("inspect-model", "s3://bucket/model"),
        ("import-index", "s3://bucket/index", "--output", "x"),
        ("publish", "s3://bucket/release"),
    ],
)
def test_every_command_refuses_an_address_as_the_mistake_that_it_is(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    answer = run_command(tmp_path, *arguments)
    assert answer.returncode == 2, answer.stderr
    assert "s3:" in answer.stderr and "Traceback" not in answer.stderr
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("s3")]


def test_a_folder_that_is_called_like_a_scheme_is_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "s3:" / "home").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    refuse_address("s3:/home", "--home")
    assert find_home("s3:/home").root == tmp_path / "s3:" / "home"


@pytest.mark.parametrize("character", ["\n", "\t", "\x1b", "\\", "\udcff"])
def test_a_home_whose_path_no_library_can_write_is_refused_with_the_character(tmp_path: Path, character: str) -> None:
    with pytest.raises(UserError, match="control characters and backslashes"):
        find_home(tmp_path / f"a{character}b")


def test_an_error_of_another_kind_is_told_even_where_the_environment_names_no_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("something else")

    monkeypatch.setattr("latentlens_dag.index.reference_import.import_index", fail)
    environment = {"LATENTLENS_HOME": "s3://bucket/home"}
    answer = run_command(tmp_path, "import-index", "x", "--output", "y", environment=environment)
    assert (answer.returncode, answer.stderr.splitlines()[0]) == (1, "Error: RuntimeError: something else")
