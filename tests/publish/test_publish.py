"""The real client puts a release on our own Hub: whole, once, by one commit, over nobody else's work."""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from latentlens_dag.cli.main import cli
from latentlens_dag.errors import UserError
from latentlens_dag.publish.plan import read_staged_release
from latentlens_dag.publish.publish import publish
from latentlens_dag.storage.home import Home
from tests.helpers.hub_server import Fault, HubServer, Repo
from tests.helpers.publications import FILES, LEAST_LARGE, TOKEN, content, held, published, stage

COMMAND = """
import time
time.sleep = lambda seconds: None
from latentlens_dag.cli.main import main
main()
"""
GITATTRIBUTES = {".gitattributes": b"*.bin filter=lfs\n"}


def _command(hub: HubServer, folder: Path, *options: str, code: int = 0, **environment: str) -> CompletedProcess[str]:
    environment = {"HF_TOKEN": TOKEN, **environment}
    at = folder.parent / "home"
    run = hub.run(COMMAND, "publish", str(folder), "--repo-id", "user/name", *options, home=at, **environment)
    assert run.returncode == code, run.stdout + run.stderr
    assert TOKEN not in run.stdout + run.stderr
    return run


def _repo(name: str, files: Mapping[str, bytes] = GITATTRIBUTES, **facts: Any) -> Repo:
    return Repo(f"user/{name}", files, least_large=LEAST_LARGE, **facts)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return stage(tmp_path / "staged")


def test_a_release_is_there_whole_after_one_commit_and_again_unchanged_makes_none(folder: Path) -> None:
    hub = HubServer(page=2, part_bytes=40_000)  # of listings; of the largest file, which so travels in parts
    told = _command(hub, folder, "--tag", "v1.0.0")
    repo = hub.repos["dataset", "user/name"]
    assert {path: one for path, one in repo.main.files.items() if path != ".gitattributes"} == held(folder)
    assert len(repo.history) == 2 and repo.tags == {"v1.0.0": repo.head}  # created, published
    assert hub.asked("^PUT") == 3 and not repo.private
    assert "6 to add" in told.stderr and repo.head in told.stdout
    hub.requests.clear()
    facts = json.loads(_command(hub, folder, "--tag", "v1.0.0", "--json").stdout)
    assert (facts["committed"], facts["commit"], facts["unchanged"]) == (False, repo.head, 6)
    assert len(repo.history) == 2 and not hub.asked("^(POST|PUT)")


def test_of_a_change_only_what_changed_travels_and_what_somebody_else_put_there_stays(folder: Path) -> None:
    hub = HubServer()
    repo = hub.add(_repo("name", {**GITATTRIBUTES, "README.md": b"# As the Hub made it"}))
    published(hub, folder.parent / "home", [(folder, "name", {})])
    repo.commit_files({"discussion.md": b"Not ours."})
    files = {**FILES, "parts/a.bin": content(9, 50_000), "moved/b.bin": FILES["parts/b.bin"]}
    del files["parts/b.bin"], files["parts/small.bin"]
    stage(folder, files)
    before, hub.received_bytes = len(repo.history), 0
    hub.requests.clear()
    planned = json.loads(_command(hub, folder, "--dry-run", "--json", "--tag", "v2").stdout)
    assert not hub.asked("^(POST|PUT)") and len(repo.history) == before
    assert planned["adds"] == {"moved/b.bin": 30_000}
    assert sorted(planned["replacements"]) == ["manifest.json", "parts/a.bin"]
    assert planned["deletions"] == ["parts/b.bin", "parts/small.bin"]
    assert planned["upload_bytes"] == 50_000 + (folder / "manifest.json").stat().st_size
    _command(hub, folder)
    assert dict(repo.main.files) == {**GITATTRIBUTES, "discussion.md": b"Not ours.", **held(folder)}
    assert len(repo.history) == before + 1 and hub.asked("^PUT") == 1 and hub.received_bytes < 60_000


def test_a_tag_that_names_another_commit_is_refused_before_anything_is_sent(folder: Path) -> None:
    hub = HubServer()
    repo = hub.add(_repo("name", tags={"v1": "0" * 40}))
    told = _command(hub, folder, "--tag", "v1", code=2)
    assert "names another commit (0000" in told.stderr and "take a new one" in told.stderr
    assert not hub.asked("^(POST|PUT)") and len(repo.history) == 1


def test_a_pull_request_holds_the_release_main_stays_and_no_second_one_is_made(folder: Path) -> None:
    hub = HubServer(faults=[Fault("lost", "POST .*/commit/")])
    repo = hub.add(_repo("name"))
    first, again = published(hub, folder.parent / "home", [(folder, "name", {"create_pr": True})] * 2)
    assert (first["error"], first["pull"], again["pull"]) == (None, "refs/pr/1", "refs/pr/1")
    assert (first["committed"], again["committed"]) == (True, False)
    assert list(repo.pulls) == ["refs/pr/1"] and dict(repo.main.files) == GITATTRIBUTES
    assert dict(repo.history[repo.pulls["refs/pr/1"]].files) == {**GITATTRIBUTES, **held(folder)}


def test_private_is_private_before_anything_is_sent(folder: Path) -> None:
    hub = HubServer()
    public = hub.add(_repo("public"))
    how = {"private": True}
    new, there = published(hub, folder.parent / "home", [(folder, "new", how), (folder, "public", how)])
    assert new["error"] is None and hub.repos["dataset", "user/new"].private
    assert there["error"] == "UserError" and "is public" in there["message"] and len(public.history) == 1


# What goes wrong once, and is mended by asking or trying again.
PASSING = {
    "commit_lost": Fault("lost", "POST .*user/commit_lost/commit/"),
    "commit_reset": Fault("reset", "POST .*user/commit_reset/commit/"),
    "commit_busy": Fault(429, "POST .*user/commit_busy/commit/", headers={"Retry-After": "7"}),
    "commit_fails": Fault(500, "POST .*user/commit_fails/commit/"),
    "commit_cut": Fault("truncated", "POST .*user/commit_cut/commit/"),
    "commit_damaged": Fault("flipped_sent", "POST .*user/commit_damaged/commit/", after=b'"content": "'),
    "file_damaged": Fault("flipped_sent", "PUT .*user/file_damaged"),
    "file_lost": Fault("lost", "PUT .*user/file_lost"),
    "tag_lost": Fault("lost", "POST .*user/tag_lost/tag/"),
    "tree_cut": Fault("truncated", "GET .*user/tree_cut/tree/"),
    "tree_damaged": Fault("flipped", "GET .*user/tree_damaged/tree/"),
    "info_fails": Fault(503, "GET .*user/info_fails/revision/"),
}


@pytest.fixture(scope="module")
def passing(tmp_path_factory: pytest.TempPathFactory) -> tuple[HubServer, dict[str, dict[str, Any]], Path]:
    at = tmp_path_factory.mktemp("passing")
    hub, folder = HubServer(faults=list(PASSING.values())), stage(at / "staged")
    for name in PASSING:
        hub.add(_repo(name))
    outcomes = published(hub, at / "home", [(folder, name, {"tag": "v1"}) for name in PASSING])
    return hub, dict(zip(PASSING, outcomes, strict=True)), folder


@pytest.mark.parametrize("name", PASSING)
def test_what_goes_wrong_once_is_mended_without_a_second_commit(
    passing: tuple[HubServer, dict[str, dict[str, Any]], Path], name: str
) -> None:
    hub, outcomes, folder = passing
    repo = hub.repos["dataset", f"user/{name}"]
    assert PASSING[name].seen >= 1
    if name == "file_damaged" and outcomes[name]["error"]:  # the store refused it: told, and nothing was changed
        assert "Nothing on main was changed; run again" in outcomes[name]["message"]
        assert dict(repo.main.files) == GITATTRIBUTES
        return
    assert outcomes[name]["error"] is None, outcomes[name]
    assert dict(repo.main.files) == {**GITATTRIBUTES, **held(folder)}
    assert repo.tags == {"v1": repo.head}
    assert len(repo.history) == (3 if name == "commit_damaged" else 2)  # which is put right
    if name == "commit_busy":
        assert 7 in outcomes[name]["waits"]


def _somebody(repo: Repo, files: Mapping[str, bytes | None]) -> Callable[[], object]:
    return lambda: repo.commit_files(files, "somebody else's")


def test_somebody_elses_commit_meanwhile_is_built_upon_but_no_release_is_put_over_theirs(
    folder: Path, tmp_path: Path
) -> None:
    hub = HubServer()
    theirs = held(stage(tmp_path / "theirs", {**FILES, "theirs.bin": b"theirs"}))
    beside, over = hub.add(_repo("beside")), hub.add(_repo("over"))
    hub.meanwhile = {
        r"POST .*user/beside/commit/": _somebody(beside, {"notes.md": b"Theirs."}),
        r"POST .*user/over/commit/": _somebody(over, theirs),
    }
    first, second = published(hub, tmp_path / "home", [(folder, "beside", {}), (folder, "over", {})])
    assert first["error"] is None
    assert dict(beside.main.files) == {**GITATTRIBUTES, "notes.md": b"Theirs.", **held(folder)}
    assert second["error"] == "UserError" and "Somebody else published to user/over" in second["message"]
    assert dict(over.main.files) == {**GITATTRIBUTES, **theirs}


@pytest.fixture(scope="module")
def refused(tmp_path_factory: pytest.TempPathFactory) -> tuple[HubServer, dict[str, dict[str, Any]]]:
    """What one client makes of repositories and servers that it must leave as they are."""
    at = tmp_path_factory.mktemp("refused")
    folder, other = stage(at / "staged"), held(stage(at / "other", name="another"))
    newer = {**other, "manifest.json": re.sub(rb'("schema_version": ?)\d+', rb"\g<1>99", other["manifest.json"])}
    card = stage(at / "card", {**FILES, "README.md": b"---\na: [\n---\n"})
    licence = stage(at / "licence", {**FILES, "README.md": b"---\nlicense: [mit]\n---\n"})
    changing = stage(at / "changing")
    hub = HubServer(
        faults=[
            Fault(500, "user/down/", times=99),
            Fault(500, r"PUT .*user/store\.git/", times=99),
            Fault(401, "user/expired/", times=99),
            Fault(403, "POST .*user/forbidden/commit", times=99),
            Fault(429, "user/long/", times=99, headers={"Retry-After": "3600"}),
            Fault("reset", "POST .*user/never/commit", times=99),
        ],
        meanwhile={
            r"PUT .*user/changing\.git/": lambda: (changing / "parts" / "small.bin").write_bytes(content(5, 300))
        },
    )
    for name in ("down", "store", "expired", "forbidden", "long", "never", "changing", "card", "licence"):
        hub.add(_repo(name))
    hub.add(_repo("model", {**GITATTRIBUTES, "model.bin": b"weights"}))
    hub.add(_repo("another", other))
    hub.add(_repo("newer", newer))
    hub.add(_repo("foreign", {"manifest.json": b'{"format": "of a web page"}'}))
    folders = {"card": card, "licence": licence, "changing": changing}
    names = [name.removeprefix("user/") for _, name in hub.repos]
    outcomes = published(hub, at / "home", [(folders.get(name, folder), name, {}) for name in names])
    return hub, dict(zip(names, outcomes, strict=True))


UNCHANGED = "Nothing on main was changed"
REFUSALS = {
    "down": ("PublicationError", rf"Reading what user/down holds failed: .* status 500\. {UNCHANGED}; run again"),
    "store": ("PublicationError", rf"Sending files to user/store failed: .* status 500\. {UNCHANGED}; run again"),
    "never": ("PublicationError", rf"took no commit in 3 tries\. {UNCHANGED}; run again"),
    "long": ("PublicationError", rf"asks to wait for more than 300 s\. {UNCHANGED}; run again"),
    "expired": ("UserError", r"does not take your token .*expired.*hf auth login"),
    "forbidden": ("UserError", rf"Your token may not write to user/forbidden .*{UNCHANGED}"),
    "changing": ("UserError", rf"parts/small\.bin of .* was changed while it was sent\. {UNCHANGED}"),
    "card": ("UserError", rf"does not take the card, .*README\.md: .*line 1, column 5.*{UNCHANGED}"),
    "licence": ("UserError", rf"does not take the card, .*README\.md: .*{UNCHANGED}"),
    "model": (
        "UserError",
        r"user/model of the Hub holds something that is no release \('model\.bin'\).*new repo",
    ),
    "another": ("UserError", r"holds another release \(another, tables\).*\(demo, tables\)"),
    "newer": ("UserError", r"newer version.*pip install -U"),
    "foreign": ("UserError", r"holds a manifest\.json that is of no release"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_refusal_or_failure_leaves_main_as_it_was_and_says_what_to_do(
    refused: tuple[HubServer, dict[str, dict[str, Any]]], name: str
) -> None:
    hub, outcomes = refused
    kind, message = REFUSALS[name]
    assert outcomes[name]["error"] == kind, outcomes[name]
    assert re.search(message, outcomes[name]["message"]), outcomes[name]
    repo = hub.repos["dataset", f"user/{name}"]
    assert len(repo.history) == 1 and sum(outcomes[name]["waits"]) < 60
    if name in ("model", "another", "newer", "foreign", "card", "licence"):
        assert not hub.asked(rf"^(POST|PUT) .*user/{name}/")


def test_a_file_that_somebody_else_put_under_our_name_is_not_replaced(folder: Path) -> None:
    hub = HubServer()
    repo = hub.add(_repo("name", {**GITATTRIBUTES, **held(folder)}))
    repo.commit_files({"new.bin": b"theirs"})
    stage(folder, {**FILES, "new.bin": b"ours"})
    assert "holds new.bin, which its release does not list" in _command(hub, folder, code=2).stderr
    assert repo.main.files["new.bin"] == b"theirs"


def test_a_gitignore_of_the_repository_leaves_nothing_out(folder: Path) -> None:
    hub = HubServer()
    repo = hub.add(_repo("name", {**GITATTRIBUTES, **held(folder)}))
    repo.commit_files({".gitignore": b"*.bin\nqueries/*\n"})
    stage(folder, {**FILES, "parts/c.bin": content(7, 2000), "queries/more.sql": b"SELECT 2"})
    _command(hub, folder)
    assert {path for path in repo.main.files if path[0] != "."} == set(held(folder))


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _flip(path: Path) -> None:
    one = path.read_bytes()
    path.write_bytes(bytes([one[0] ^ 1]) + one[1:])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_cut, r"parts/a\.bin has 49,999 bytes, not 50,000"),
        (_flip, r"parts/a\.bin has another content"),
        (Path.unlink, r"parts/a\.bin is missing"),
    ],
)
def test_a_damaged_folder_is_refused(folder: Path, damage: Callable[[Path], None], message: str) -> None:
    assert read_staged_release(folder).files.keys() == held(folder).keys()
    damage(folder / "parts" / "a.bin")
    with pytest.raises(UserError, match=rf"is damaged, and is not published: {message}"):
        read_staged_release(folder)


@pytest.mark.parametrize(
    ("repo_id", "how", "message"),
    [
        ("name", {}, "write it as user/name"),
        ("user/a--b", {}, "write it as user/name"),
        ("user/name", {"tag": "main"}, "cannot be a tag"),
        ("user/name", {"tag": "0123abc"}, "cannot be a tag"),
        ("user/name", {"tag": "v1", "create_pr": True}, "merge the pull request first"),
    ],
)
def test_names_that_the_hub_would_not_take_are_refused(
    folder: Path, repo_id: str, how: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        publish(folder, repo_id, **how)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["demo2"], r"no staged release 'demo2' in .*There are: demo\."),
        (["{home}/warehouse/release/demo"], r"say which repository it goes to with --repo-id"),
        (["demo", "--repo-id", "user/name"], r"needs a token"),
    ],
)
def test_a_release_is_named_as_in_the_home_or_is_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    stage(Home(tmp_path).warehouse.release("demo"))
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(UserError, match=message):
        cli.main(["publish", *(one.format(home=tmp_path) for one in arguments), "--home", str(tmp_path)])


def test_a_damaged_folder_or_a_missing_token_is_told_before_the_hub_is_asked(folder: Path) -> None:
    hub = HubServer()
    assert "hf auth login" in _command(hub, folder, code=2, HF_TOKEN="").stderr
    _cut(folder / "parts" / "b.bin")
    assert "parts/b.bin has 29,999 bytes" in _command(hub, folder, code=2).stderr
    assert not hub.asked("user/name") and not hub.asked("^POST")


def test_a_failure_of_the_hub_leaves_with_1_and_says_that_running_again_goes_on(folder: Path) -> None:
    hub = HubServer(faults=[Fault(500, "POST .*/objects/batch", times=99)])
    told = _command(hub, folder, "--debug", code=1).stderr
    assert UNCHANGED in told and "run again to go on" in told
    hub.faults.clear()
    _command(hub, folder)
    assert set(hub.repos["dataset", "user/name"].main.files) == {".gitattributes", *held(folder)}
