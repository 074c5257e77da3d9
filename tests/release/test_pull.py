"""Releases pulled by the real client from a Hub of our own, in processes that reach nothing else."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from latentlens_dag.schema import TABLES
from tests.helpers.hub_server import COMMIT, Fault, HubServer, Repo
from tests.helpers.pull_faults import check_faults
from tests.helpers.small_release import files_of, write_manifest, write_release

TAG = "v1.0.0"
CLI = """
import time
time.sleep = lambda seconds: None  # between retries
from latentlens_dag.cli.main import main
main()
"""
OPEN = """
import json
from latentlens_dag import open_dataset
with open_dataset(sys.argv[1]) as data:
    print(json.dumps([data.tables, data.sql("SELECT count(*) FROM neighbors").fetchall(), data.release.name]))
"""


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_release(tmp_path_factory.mktemp("releases") / "small")


@pytest.fixture
def hub(release: Path) -> HubServer:
    hub = HubServer()
    more = {"unlisted.bin": b"no", "neighbors/one/unlisted.parquet": b"no"}
    hub.add(Repo("user/small", {**files_of(release), **more}, refs=("main", TAG)))
    return hub


def _pull(hub: HubServer, home: Path, *arguments: str, code: int = 0, **environment: str) -> Any:
    run = hub.run(CLI, "pull", *arguments, *([] if code else ["--json"]), home=home, **environment)
    assert run.returncode == code, run.stdout + run.stderr
    return " ".join(run.stderr.split()) if code else json.loads(run.stdout)


def _open(hub: HubServer, home: Path, name: str, **environment: str) -> Any:
    run = hub.run(OPEN, name, home=home, **environment)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def _with(hub: HubServer, name: str, files: dict[str, bytes]) -> None:
    hub.add(Repo(name, files, refs=("main", TAG)))


def _fetched(hub: HubServer) -> set[str]:
    found = (re.search(r"GET /datasets/.*/resolve/[^/]+/(.*)", request) for request in hub.requests)
    return {one[1] for one in found if one}


def test_a_pull_brings_exactly_the_files_of_the_manifest_and_a_second_one_nothing(
    hub: HubServer, release: Path, tmp_path: Path
) -> None:
    found = _pull(hub, tmp_path / "home", f"user/small@{TAG}", "--output", str(tmp_path / "copy"))
    assert found["commit"] == COMMIT and found["fetched_files"] == found["files"] == len(files_of(release)) - 1
    assert found["tables"]["neighbors"] == 300 and found["folder"] == str(tmp_path / "copy")
    assert _fetched(hub) == set(files_of(release))
    assert files_of(tmp_path / "copy") == files_of(release)

    hub.requests.clear()
    again = _pull(hub, tmp_path / "home", f"user/small@{TAG}")
    assert again["fetched_files"] == 0 and again["files"] == found["files"]
    asked = [request for request in hub.requests if "user/small" in request]  # the client has questions of its own
    assert asked == [f"GET /api/datasets/user/small/revision/{TAG}"]


def test_what_was_pulled_opens_without_a_request_at_its_commit_and_without_a_network_at_its_tag(
    hub: HubServer, tmp_path: Path
) -> None:
    opened = _open(hub, tmp_path / "home", f"user/small@{TAG}")
    assert opened[1:] == [[[300]], "small"] and opened[0] == sorted(TABLES)

    hub.requests.clear()
    assert _open(hub, tmp_path / "home", f"user/small@{COMMIT}") == opened
    assert not hub.requests
    assert _open(hub, tmp_path / "home", f"user/small@{TAG}", HF_HUB_OFFLINE="1") == opened
    hub.down = True
    assert _open(hub, tmp_path / "home", f"user/small@{TAG}") == opened
    assert "no answer" in _pull(hub, tmp_path / "home", "user/small", code=2)  # `main` was never asked for


def test_only_the_tables_that_are_asked_for_are_fetched_and_the_rest_is_told(hub: HubServer, tmp_path: Path) -> None:
    home = tmp_path / "home"
    found = _pull(hub, home, "user/small", "--tables", "neighbors,images", "--output", str(tmp_path / "copy"))
    assert set(found["tables"]) == {"neighbors", "images"}
    assert {path.partition("/")[0] for path in _fetched(hub)} == {"manifest.json", "neighbors", "images"}

    hub.requests.clear()
    assert "sentences" not in _open(hub, home, "user/small")[0]
    asked = ["query", "FROM sentences", "--data", "user/small@main"]
    told = hub.run(CLI, *asked, home=home)
    assert told.returncode == 2
    assert "Table sentences was not pulled: `latentlens-dag pull user/small@main --tables sentences`" in told.stderr
    assert not _fetched(hub)

    assert _pull(hub, home, "user/small", "--tables", "sentences")["fetched_files"] == 6
    opened = _open(hub, home, "user/small")[0]
    assert {"neighbors", "images", "sentences"} <= set(opened) and "judgements" not in opened
    assert "no table 'cats'; its tables: corpus_ablation, diversity, images" in _pull(
        hub, home, "user/small", "--tables", "cats", code=2
    )


def test_the_command_line_asks_a_release_by_its_name(hub: HubServer, tmp_path: Path) -> None:
    query = ["query", "SELECT count(*) AS n FROM visual_tokens", "--data", f"user/small@{TAG}", "--format", "csv"]
    run = hub.run(CLI, *query, home=tmp_path / "home")

    assert run.stdout.split() == ["n", "25"], run.stderr


def test_a_file_that_was_changed_after_it_was_verified_is_looked_at_and_fetched_again(
    hub: HubServer, release: Path, tmp_path: Path
) -> None:
    folder = Path(_pull(hub, tmp_path / "home", "user/small")["folder"])
    changed = folder / "diversity.parquet"
    content = changed.read_bytes()
    changed.resolve().write_bytes(content[:-20] + b"!" + content[-19:])
    hub.requests.clear()

    assert _open(hub, tmp_path / "home", "user/small")[1] == [[300]]
    assert _fetched(hub) == {"diversity.parquet"}
    assert changed.read_bytes() == (release / "diversity.parquet").read_bytes()


def test_a_table_whose_file_is_gone_is_fetched_again_and_tables_that_were_never_pulled_are_not(
    hub: HubServer, tmp_path: Path
) -> None:
    folder = Path(_pull(hub, tmp_path / "home", "user/small", "--tables", "neighbors,diversity")["folder"])
    (folder / "diversity.parquet").resolve().unlink()
    (folder / "diversity.parquet").unlink()
    hub.requests.clear()

    assert {"neighbors", "diversity"} < set(_open(hub, tmp_path / "home", "user/small")[0])
    assert _fetched(hub) == {"diversity.parquet"}


def test_a_table_that_only_the_link_to_is_gone_is_linked_again_and_not_fetched(hub: HubServer, tmp_path: Path) -> None:
    folder = Path(_pull(hub, tmp_path / "home", "user/small", "--tables", "neighbors,diversity")["folder"])
    (folder / "diversity.parquet").unlink()
    hub.requests.clear()

    assert {"neighbors", "diversity"} < set(_open(hub, tmp_path / "home", "user/small")[0])
    assert _fetched(hub) == set()


@pytest.mark.parametrize(("kind", "times"), [("flipped", 12), ("truncated", 1), ("reset", 12), (500, 12)])
def test_a_pull_that_something_happened_to_ends_right_or_is_completed_by_the_next(
    tmp_path: Path, kind: Any, times: int
) -> None:
    check_faults(tmp_path, kind, times, every=3)


@pytest.mark.parametrize("path", ["diversity.parquet", "manifest.json", "README.md"])
def test_a_byte_that_was_flipped_on_its_way_once_is_fetched_again_at_once(
    hub: HubServer, release: Path, tmp_path: Path, path: str
) -> None:
    hub.faults.append(Fault("flipped", f"GET /datasets/.*/{path}"))

    assert files_of(Path(_pull(hub, tmp_path / "home", "user/small")["folder"])) == files_of(release)
    assert hub.asked(f"GET /datasets/.*/{path}") == 2


def test_a_file_that_lay_damaged_in_the_cache_before_is_fetched_again(hub: HubServer, tmp_path: Path) -> None:
    client = "import huggingface_hub as h; print(h.snapshot_download('user/small', repo_type='dataset'))"
    folder = Path(hub.run(client, home=tmp_path / "home").stdout.strip())
    blob = (folder / "diversity.parquet").resolve()
    content = blob.read_bytes()
    blob.write_bytes(content[:100] + b"?" + content[101:])
    hub.requests.clear()

    _pull(hub, tmp_path / "home", "user/small")
    assert _fetched(hub) == {"diversity.parquet"}
    assert (folder / "diversity.parquet").read_bytes() == content


def test_an_interrupted_pull_goes_on_where_it_was(hub: HubServer, release: Path, tmp_path: Path) -> None:
    hub.failing = {"diversity": 403}
    told = _pull(hub, tmp_path / "home", "user/small", code=2, HF_TOKEN="hf_secret")
    assert "status 403" in told and "hf_secret" not in told
    hub.failing, before = {}, _fetched(hub) - {"diversity.parquet"}
    hub.requests.clear()

    assert _open(hub, tmp_path / "home", "user/small")[1] == [[300]]
    assert len(before) > 5 and _fetched(hub) == set(files_of(release)) - before


def test_a_folder_that_is_no_release_is_not_replaced_by_a_copy(hub: HubServer, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("mine")
    told = _pull(hub, tmp_path / "home", "user/small", "--output", str(tmp_path / "mine"), code=2)

    assert "neither a release nor an empty folder" in told
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "mine"


MISTAKES = {
    "no such release": (["user/nobody"], r"no release user/nobody on the Hub, nor a folder of this name here"),
    "no such tag": (["user/small@v9"], r"user/small of the Hub has no revision v9\."),
    "no such commit": (["user/small", "--revision", "f" * 40], r"user/small of the Hub has no revision ffff"),
    "two revisions": (["user/small@v1", "--revision", "v2"], r"name two revisions: leave one out"),
    "gated": (["user/gated"], r"user/gated of the Hub is gated: ask for access .*`hf auth login`"),
    "no manifest": (["user/plain"], r"user/plain of the Hub is no release at 0123.*: it has no manifest\.json"),
    "not a name": (["small"], r"'small' is no release of the Hub: write it as user/name or user/name@v1"),
    "a path": (["../small"], r"'\.\./small' is no release of the Hub"),
}


def test_a_mistake_is_told_in_one_message(hub: HubServer, release: Path, tmp_path: Path) -> None:
    hub.add(Repo("user/gated", files_of(release), gated=True))
    _with(hub, "user/plain", files_of(release, ["manifest.json"]))
    code = "import json\nfrom click.testing import CliRunner\nfrom latentlens_dag.cli.main import cli\n"
    code += "found = [CliRunner().invoke(cli, ['pull', *one]).exception for one in json.loads(sys.argv[1])]\n"
    code += "print(json.dumps([[type(one).__name__, str(one)] for one in found]))"
    run = hub.run(code, json.dumps([asked for asked, _ in MISTAKES.values()]), home=tmp_path / "home")
    assert run.returncode == 0, run.stderr

    for (kind, told), (_, expected) in zip(json.loads(run.stdout), MISTAKES.values(), strict=True):
        assert kind == "UserError", told
        assert re.search(expected, told), told


HOSTILE = {
    "another size": lambda files: files.update({"diversity.parquet": files["diversity.parquet"] + b"0" * 10**6}),
    "a file less": lambda files: files.pop("diversity.parquet"),
    "another content": lambda files: files.update({"diversity.parquet": b"0" * len(files["diversity.parquet"])}),
    "a manifest of 65 MiB": lambda files: files.update({"manifest.json": b" " * (65 << 20)}),
    "a path out": lambda files: files.update(
        {"manifest.json": files["manifest.json"].replace(b'"README.md"', b'"../../../evil.md"')}
    ),
}
REASONS = {
    "another size": r"diversity\.parquet has 1,\d+,\d+ bytes there, and its manifest\.json says \d,\d+ bytes",
    "a file less": r"diversity\.parquet is not there",
    "another content": r"diversity\.parquet arrived damaged, or is not what its release says",
    "a manifest of 65 MiB": r"manifest\.json has 68,157,440 bytes, more than any release needs",
    "a path out": r"path is '\.\./\.\./\.\./evil\.md'",
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_repository_that_is_not_what_its_manifest_says_is_refused(
    hub: HubServer, release: Path, tmp_path: Path, kind: str
) -> None:
    files = files_of(release)
    HOSTILE[kind](files)
    _with(hub, "user/evil", files)

    told = _pull(hub, tmp_path / "home", "user/evil", code=2)

    assert re.search(REASONS[kind], told), told
    fetched = _fetched(hub)
    if kind == "another content":  # only the whole file tells
        assert "diversity.parquet" in fetched
    else:
        assert fetched == (set() if kind == "a manifest of 65 MiB" else {"manifest.json"})
    assert not list(tmp_path.rglob("evil*"))


def test_a_release_that_could_not_be_opened_here_is_refused_before_its_tables_are_fetched(
    hub: HubServer, release: Path, tmp_path: Path
) -> None:
    def drop(tables: dict[str, Any]) -> None:
        tables.update({path: table.drop("cosine") for path, table in tables.items() if path.startswith("neighbors/")})

    _with(hub, "user/old", files_of(write_release(tmp_path / "old", drop)))

    assert "it lacks the columns cosine" in _pull(hub, tmp_path / "home", "user/old", code=2)
    assert _fetched(hub) == {"manifest.json"}


def test_a_file_that_its_author_made_to_do_harm_is_refused_and_never_opened(
    hub: HubServer, release: Path, tmp_path: Path
) -> None:
    evil = Path(shutil.copytree(release, tmp_path / "evil"))
    bomb = pa.table({"sentence_id": ["0" * 16], "text": ["a" * 100_000_000]})
    pq.write_table(bomb, next((evil / "sentences").glob("*.parquet")), compression="zstd")
    write_manifest(evil)
    _with(hub, "user/evil", files_of(evil))

    for _ in range(2):
        assert re.search("bytes would become 100,0", _pull(hub, tmp_path / "home", "user/evil", code=2))
    run = hub.run(OPEN, "user/evil", home=tmp_path / "home", HF_HUB_OFFLINE="1")
    assert run.returncode == 1 and "UserError" in run.stderr


def test_a_disk_without_room_is_told_before_anything_is_fetched(hub: HubServer, release: Path, tmp_path: Path) -> None:
    code = "import shutil\nfrom collections import namedtuple\n"
    code += "shutil.disk_usage = lambda path: namedtuple('U', 'total used free')(10, 0, 10)\n" + CLI
    run = hub.run(code, "pull", "user/small", home=tmp_path / "home")

    assert run.returncode == 2
    assert re.search(r"needs [\d,]+ bytes more, and the disk of the cache \(.*\) has 10 free", run.stderr)
    assert _fetched(hub) == {"manifest.json"}


def test_an_index_is_pulled_too_and_is_not_opened_as_tables(hub: HubServer, release: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(release, tmp_path / "index"))
    write_manifest(folder)
    manifest = folder / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"kind": "tables"', '"kind": "index"'))
    _with(hub, "user/index", files_of(folder))

    assert _pull(hub, tmp_path / "home", "user/index")["kind"] == "index"
    run = hub.run(CLI, "query", "studies", "--data", "user/index", home=tmp_path / "home")
    assert run.returncode == 2 and "ContextualIndex.open" in run.stderr
