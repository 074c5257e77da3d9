"""The command line over a small dataset: what is printed, in which form, and with which exit code."""

import json
import subprocess
import sys
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from latentlens_dag.release.migrations import MIGRATIONS
from latentlens_dag.schema import CAPTION_SCORES
from latentlens_dag.storage.parquet import write_parquet
from tests.helpers.command_line import run_command
from tests.helpers.small_dataset import as_first_version, write_warehouse

STUDY = "one"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    write_warehouse(folder / "warehouse")
    return folder


def _run(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run_command(Path.cwd(), *arguments, environment={"LATENTLENS_HOME": str(home)})


def test_without_a_query_the_queries_are_listed_with_their_parameters(home: Path) -> None:
    run = _run(home, "query")
    assert run.returncode == 0
    assert "where_word --param word=..." in run.stdout
    assert "interpretability" in run.stdout


def test_a_named_query_takes_its_parameters(home: Path) -> None:
    run = _run(home, "query", "where_word", "--param", "word=dog", "--format", "json")
    rows = json.loads(run.stdout)
    assert rows
    assert all(row["patches"] >= 1 for row in rows)


def test_the_forms_say_the_same(home: Path, tmp_path: Path) -> None:
    query = "SELECT image_id, token_index, word FROM neighbors ORDER BY ALL LIMIT 7"
    as_json = json.loads(_run(home, "query", query, "--format", "json").stdout)
    csv = pl.read_csv(_run(home, "query", query, "--format", "csv").stdout.encode())
    assert _run(home, "query", query, "--format", "parquet", "--output", str(tmp_path / "a.parquet")).returncode == 0
    assert as_json == csv.to_dicts() == pl.read_parquet(tmp_path / "a.parquet").to_dicts()


def test_lists_and_bytes_have_a_form_in_csv(home: Path) -> None:
    run = _run(home, "query", "SELECT words FROM judgements WHERE len(words) > 0 LIMIT 1", "--format", "csv")
    assert run.returncode == 0
    assert run.stdout.splitlines()[1].startswith('"[')
    assert _run(home, "query", "SELECT thumbnail FROM images LIMIT 1", "--format", "csv").stdout.splitlines()[1] == "9"


def test_text_from_data_does_not_drive_the_terminal(home: Path) -> None:
    run = _run(home, "query", "SELECT 'a' || chr(27) || '[31mred' AS word")
    assert "\x1b" not in run.stdout
    assert "\ufffd[31mred" in run.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["query", "wherever"], "where_word"),
        (["query", "SELECT nothing FROM neighbors"], "nothing"),
        (["query", "where_word"], "needs word"),
        (["query", "where_word", "--param", "word"], "must be NAME=VALUE"),
        (["query", "where_word", "--param", "word=dog", "--param", "layer=x"], "x"),
        (["query", "COPY (SELECT 1) TO 'out.csv'"], "COPY"),
        (["query", "SELECT 1", "--format", "parquet"], "--output"),
        (["query", "SELECT 1", "--format", "yaml"], "yaml"),
        (["summary", "nobody"], "nobody"),
    ],
)
def test_a_wrong_call_is_one_message_with_exit_code_2(home: Path, arguments: list[str], message: str) -> None:
    run = _run(home, *arguments)
    assert run.returncode == 2, (run.stdout, run.stderr)
    assert message in run.stderr
    assert "Traceback" not in run.stderr


def test_a_home_without_results_says_what_to_do(tmp_path: Path) -> None:
    run = _run(tmp_path / "nowhere", "query", "studies")
    assert run.returncode == 2
    assert "Nothing is built in" in run.stderr


def test_a_home_in_which_nothing_is_built_yet_says_so(tmp_path: Path) -> None:
    (tmp_path / "warehouse" / "observed").mkdir(parents=True)
    for arguments in (["query", "FROM neighbors"], ["summary", "tiny"]):
        run = _run(tmp_path, *arguments)
        assert (run.returncode, run.stdout) == (2, "")
        assert "Nothing is built in" in run.stderr


@pytest.mark.parametrize("name", ["absent/a", "file/a", "folder"])
def test_a_file_that_cannot_be_written_is_told(home: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("a file, no folder")
    (tmp_path / "folder").mkdir()
    for form in ("csv", "parquet"):
        run = _run(home, "query", "SELECT 1 AS a", "--format", form, "--output", str(tmp_path / name))
        assert run.returncode == 2, run.stderr
        assert "--output" in run.stderr and name in run.stderr and "Traceback" not in run.stderr


def test_a_picture_that_cannot_be_written_is_told(home: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file, no folder")
    run = _run(home, "summary", STUDY, "--picture", str(tmp_path / "file" / "a.png"))
    assert run.returncode == 2, run.stderr
    assert "`--picture " in run.stderr and "cannot be written" in run.stderr and "Traceback" not in run.stderr


def test_a_study_without_a_judge_is_summed_up_by_its_answers(tmp_path: Path) -> None:
    write_warehouse(tmp_path / "warehouse")
    for file in (tmp_path / "warehouse").rglob("interpretability*"):
        file.unlink()
    run = _run(tmp_path, "summary", STUDY)
    assert run.returncode == 0, run.stderr
    assert "different words among a token's answers" in run.stdout and "contextual layer" in run.stdout
    assert "no judge" in run.stdout


def test_a_summary_has_all_figures_of_a_measure_by_one_answer_or_by_all(home: Path) -> None:
    run = _run(home, "summary", STUDY, "--measure", "global")
    assert "by 2 answers, patches object: % of tokens with a word for what is elsewhere" in run.stdout
    assert "effective" in run.stdout and run.returncode == 0
    assert "by the nearest answer, patches all" in _run(home, "summary", STUDY, "--k", "1").stdout
    wrong = _run(home, "summary", STUDY, "--k", "3")
    assert wrong.returncode == 2 and f"`--k 3`: the answers of study {STUDY} were judged by 1 and by 2" in wrong.stderr


def test_a_summary_ends_with_the_scores_of_the_models_own_captions_where_there_are_some(tmp_path: Path) -> None:
    warehouse = write_warehouse(tmp_path / "warehouse")
    before = _run(tmp_path, "summary", STUDY).stdout
    row = {"study": STUDY, "kind": "all", "measure": "recall", "share": 0.5, "images": 3, "objects": 8}
    write_parquet(
        pa.Table.from_pylist([row], CAPTION_SCORES), warehouse.summary(STUDY, "caption_scores"), CAPTION_SCORES
    )
    after = _run(tmp_path, "summary", STUDY).stdout
    assert "own captions" not in before and after.startswith(before)
    assert "recall" not in before and after.split()[-4:] == ["all", "recall", "50.0", "-"], after


def test_a_home_judged_in_part_by_an_older_version_is_read_as_one_of_today(tmp_path: Path) -> None:
    warehouse = write_warehouse(tmp_path / "warehouse")
    as_first_version(warehouse, STUDY)
    run = _run(tmp_path, "summary", STUDY)
    assert run.returncode == 0 and "\nlatentlens        0 100.0             75.0" in run.stdout, run.stdout
    assert f"An older version of this package judged {STUDY}: `latentlens-dag build` judges again" in run.stderr
    counts = "SELECT study, measure, count(low), count(*) FROM interpretability GROUP BY ALL ORDER BY ALL"
    assert len(_run(tmp_path, "query", counts, "--format", "csv").stdout.splitlines()) == 1 + 2 * 4
    verdicts = "SELECT count(first_verdict), count(verdict), count(chance_counts) FROM judgements WHERE study = 'one'"
    assert _run(tmp_path, "query", verdicts, "--format", "csv").stdout.splitlines()[1] == "0,96,96"


def test_a_home_whose_states_an_older_version_summed_up_says_what_is_null(tmp_path: Path) -> None:
    warehouse = write_warehouse(tmp_path / "warehouse")
    old = MIGRATIONS[1].before["state_statistics"]
    file = warehouse.summary(STUDY, "state_statistics")
    write_parquet(pq.read_table(file).select(old.names), file, old)
    run = _run(tmp_path, "query", "SELECT count(anisotropy), count(*) FROM state_statistics", "--format", "csv")
    assert run.stdout.splitlines()[1] == "4,8"  # of two studies, one as of today
    assert f"An older version of this package made state_statistics of {STUDY}: columns" in run.stderr
    assert "verdicts" not in run.stderr


def test_debug_shows_where(home: Path) -> None:
    assert "Traceback" in _run(home, "query", "SELECT nothing", "--debug").stderr


def test_an_error_that_quotes_data_drives_no_terminal(home: Path) -> None:
    run = _run(home, "query", "SELECT CAST('a' || chr(27) || '[2J' || chr(8238) AS INT)")
    assert run.returncode == 2 and "\x1b" not in run.stderr and "\u202e" not in run.stderr
    assert "a␛[2J\ufffd" in run.stderr


def test_a_folder_that_is_named_with_a_dot_is_no_study(home: Path, tmp_path: Path) -> None:
    (tmp_path / ".home").symlink_to(home)
    run = run_command(tmp_path, "diff", ".home", str(home))
    assert run.returncode == 0 and "cannot be compared" not in run.stderr


MISSING = [
    ("status",),
    ("plan",),
    ("status", "--versions"),
    ("check",),
    ("clean", "--dry-run"),
    ("summary", "one"),
    ("query", "SELECT 1"),
    ("query", "where_word", "--param", "word=dog"),
    ("search", "--study", "one", "--text", "a"),
    ("diff", "one", "two"),
    ("publish", "out"),
    ("browse",),
]


@pytest.mark.parametrize("arguments", MISSING, ids=" ".join)
def test_what_reads_a_home_that_does_not_exist_makes_none(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    (tmp_path / "workspace.yaml").write_text("load_from: []\n")
    (tmp_path / "assets").mkdir()
    before = sorted(tmp_path.iterdir())
    for environment, more in (({}, ("--home", "deep/nowhere")), ({"LATENTLENS_HOME": str(tmp_path / "typo")}, ())):
        answer = run_command(tmp_path, *arguments, *more, environment=environment)
        assert answer.returncode in (0, 2) and "Traceback" not in answer.stderr
        assert answer.returncode == 2 or "There is no home" in answer.stderr
        assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("command", ["plan", "status", "check", "clean"])
def test_an_empty_folder_is_no_home_and_stays_empty(tmp_path: Path, command: str) -> None:
    (tmp_path / "workspace.yaml").write_text("load_from: []\n")
    (tmp_path / "assets").mkdir()
    (tmp_path / "empty").mkdir()
    answer = run_command(tmp_path, command, "--home", "empty")
    assert f"There is no home {tmp_path / 'empty'} yet" in answer.stderr
    assert not list((tmp_path / "empty").iterdir())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ("query", "where_word", "--param", "word=dog", "--param", "word=cat"),
            "`--param word` comes twice, with 'dog'",
        ),
        (("query", "where_word", "--param", "=dog"), "`--param =dog` must be NAME=VALUE"),
        (("query", "SELECT 1", "--home", ""), "the path is empty"),
        (("build", "--home", "a" * 5000), "has a name of 5,000 bytes, and a file system takes 255"),
        (("browse", "a" * 5000), "has a name of 5,000 bytes"),
        (("publish", "a" * 5000), "has a name of 5,000 bytes"),
        (("publish", ""), "There is no staged release ''"),
        (("inspect-model", "a/" * 3000), "has a path of 6,000 bytes, and a file system takes 4,095"),
        (("query", "SELECT 1", "--data", "s3:/bucket/x"), "`data s3:/bucket/x`: addresses are not supported here"),
    ],
)
def test_a_slip_in_an_argument_is_refused_by_its_own_reason(home: Path, arguments: tuple[str, ...], words: str) -> None:
    run = _run(home, *arguments)
    assert run.returncode == 2 and words in run.stderr, run.stderr


def test_the_collector_stays_rare_until_the_process_of_a_command_ends() -> None:
    code = (
        "import atexit, gc; atexit.register(lambda: print(gc.get_threshold()[0]))\n"
        "from latentlens_dag.cli.main import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code, "--version"], capture_output=True, text=True, check=True)
    assert int(done.stdout.splitlines()[-1]) >= 100_000
