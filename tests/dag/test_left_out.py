"""What a step leaves out of its input is said in its log and metadata, by the build, and by plan and status."""

import json
import re
from pathlib import Path

import dagster as dg
import pytest
from PIL import Image

from latentlens_dag.dag.loading import load_definitions
from latentlens_dag.storage.home import Home
from latentlens_dag.testing import tiny_project
from tests.helpers.command_line import run_command

YAML = "type: latentlens_dag.dag.components.ImageSet\nattributes: {name: seen, source: {folder: pictures}}\n"


def test_the_step_that_lists_images_says_how_many_files_it_left_out_and_why(tmp_path: Path) -> None:
    (tmp_path / "workspace.yaml").write_text("load_from: []\n")
    pictures = tmp_path / "assets" / "a" / "pictures"
    pictures.mkdir(parents=True)
    (tmp_path / "assets" / "a" / "defs.yaml").write_text(YAML)
    Image.new("RGB", (8, 8)).save(pictures / "a.png")
    for name in ("b.heic", "c.heic", "d.txt"):
        (pictures / name).write_text(name)
    home = Home(tmp_path / "home")
    home.prepare()
    job = load_definitions(tmp_path, home).resolve_implicit_global_asset_job_def()
    key = dg.AssetKey(["images", "seen", "names"])
    with dg.DagsterInstance.from_config(str(home.dagster)) as instance:
        assert job.execute_in_process(asset_selection=[key], instance=instance).success
        event = instance.get_latest_materialization_event(key)
    assert event is not None and event.asset_materialization is not None
    facts = {name: value.value for name, value in event.asset_materialization.metadata.items()}
    assert (facts["other_files"], facts["hidden_images"], facts["repeated_images"], facts["linked_folders"]) == (
        3,
        0,
        0,
        0,
    )
    assert "3 files (2 .heic, 1 .txt)" in str(facts["left_out"]) and facts["dagster/row_count"] == 1
    (log,) = home.dagster.glob("storage/*/compute_logs/*.err")
    assert "3 files (2 .heic, 1 .txt)" in log.read_text()


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """The folder of an image set with all that is left out or counted by accident."""
    (tmp_path / "workspace.yaml").write_text("load_from: []\n")
    folder = tmp_path / "assets" / "a" / "pictures"
    (folder / ".hidden").mkdir(parents=True)
    (tmp_path / "assets" / "a" / "defs.yaml").write_text(YAML)
    for number, name in enumerate(("a.png", "b.png", ".hidden/c.png", "again.png")):
        Image.new("RGB", (8, 8), (number % 3, 0, 0)).save(folder / name)
    for name in ("b.heic", "c.heic", "d.txt"):
        (folder / name).write_text(name)
    (tmp_path / "elsewhere").mkdir()
    (folder / "linked").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    return folder


REASONS = (
    "images/seen/names: Left out, since only .bmp, .* are read: 3 files (2 .heic, 1 .txt). Left out, since links to "
    "folders are not followed: 1, such as linked. Counted once, since their bytes are those of another image: 1. "
    "Read though hidden (a name that begins with a dot): 1."
)


def test_build_plan_and_status_say_on_the_terminal_what_was_left_out(pictures: Path) -> None:
    project, words = pictures.parents[2], re.escape(REASONS).replace(r"\.\*", ".*")
    assert not re.search("Left out", run_command(project, "status").stdout)  # nothing is known yet
    built = run_command(project, "build")
    assert built.returncode == 0 and re.search(f"^{words}$", built.stderr, re.MULTILINE), built.stderr
    for command in ("status", "plan"):
        answer = run_command(project, command)
        assert re.search(f"^{words}$", answer.stdout, re.MULTILINE), answer.stdout
        (fact,) = json.loads(run_command(project, command, "--json").stdout)["left_out"]
        assert fact["part"] == "images/seen/names" and fact["text"] in answer.stdout
    (pictures / "new.png").write_bytes((pictures / "d.txt").read_bytes())
    assert "Left out" not in run_command(project, "status", "--select", "images/seen/source").stdout


def test_with_json_it_stands_on_stderr_and_where_nothing_is_left_out_nothing_is_said(pictures: Path) -> None:
    project = pictures.parents[2]
    built = run_command(project, "build", "--json")
    assert json.loads(built.stdout)["parts"] == 2 and "2 .heic, 1 .txt" in built.stderr
    for path in ("b.heic", "c.heic", "d.txt", ".hidden/c.png", "linked", "again.png"):
        (pictures / path).unlink()
    answers = [run_command(project, command) for command in ("build", "status")]
    assert not [answer for answer in answers if "Left out" in answer.stdout + answer.stderr or answer.returncode]


def test_sentences_that_are_cut_are_said_with_their_shard(tmp_path: Path) -> None:
    project = tiny_project(tmp_path, shards=1)
    long = " ".join(["tree"] * 5000)
    (project / "assets" / "tiny" / "corpus.txt").write_text(f"A small tree.\n{long}\n")
    built = run_command(project, "build", "--select", "index/words/candidates")
    assert re.search(r"^index/words/candidates\[00\]: Sentences with more tokens than the .*: 1\. ", built.stderr, re.M)
    assert "index/words/candidates[00]: Sentences with more tokens" in run_command(project, "status").stdout
