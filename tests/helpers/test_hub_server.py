"""The real client finds in our Hub what was put there, and nothing else anywhere."""

import json
from pathlib import Path

import pytest

from tests.helpers.hub_repo import CREATED, sha256
from tests.helpers.hub_server import COMMIT, HubServer, Repo, blob_id, can_be_alone

FILES = {
    "config.json": b"{}",
    "a/b/one.txt": b"one",
    "a/two.txt": b"two",
    "README.md": b"# A card",
    "big": b"0123456789",
}
FOLDERS = ["a", "a/b"]
CLIENT = """
import json
from huggingface_hub import HfApi, HfFileSystem, errors, snapshot_download
kind, commit = sys.argv[1:]
api, name = HfApi(), "user/name"
of = {"repo_type": kind, "revision": commit}

def failure(ask):
    try:
        return ask()
    except Exception as error:
        return type(error).__name__

tree = lambda **how: sorted(one.path for one in api.list_repo_tree(name, **how, **of))
info = api.repo_info(name, **of)
folder = snapshot_download(name, **of)
place = f"{'datasets/' if kind == 'dataset' else ''}{name}@{commit}/big"
with HfFileSystem().open(place, block_size=4) as file:
    file.seek(5)
    part = file.read(3).decode()
print(json.dumps({
    "sha": [info.sha, api.repo_info(name, repo_type=kind).sha],
    "refs": [one.target_commit for one in api.list_repo_refs(name, repo_type=kind).branches],
    "files": sorted(one.rfilename for one in info.siblings),
    "tree": [tree(recursive=True), tree(), tree(path_in_repo="a")],
    "paths": [(one.path, getattr(one, "blob_id", "")) for one in api.get_paths_info(name, ["a", "big", "no"], **of)],
    "snapshot": {str(os.path.relpath(os.path.join(at, one), folder)): open(os.path.join(at, one)).read()
                 for at, _, names in os.walk(folder) for one in names},
    "part": part,
    "failures": [
        failure(lambda: api.repo_info("user/nobody", repo_type=kind)),
        failure(lambda: api.repo_info(name, repo_type=kind, revision="e" * 40)),
        failure(lambda: api.hf_hub_download(name, "no", **of)),
        failure(lambda: api.hf_hub_download("user/gated", "file", repo_type=kind)),
    ],
}))
"""


@pytest.mark.parametrize("kind", ["dataset", "model"])
def test_the_client_reads_a_repository_as_it_was_given(tmp_path: Path, kind: str) -> None:
    hub = HubServer(page=2)
    hub.add(Repo("user/name", FILES, kind))  # type: ignore[arg-type]
    hub.add(Repo("user/gated", {"file": b"1"}, kind, gated=True))  # type: ignore[arg-type]
    run = hub.run(CLIENT, kind, COMMIT, home=tmp_path / "home")
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    assert found == {
        "sha": [COMMIT] * 2,
        "refs": [COMMIT],
        "files": sorted(FILES),
        "tree": [sorted([*FILES, *FOLDERS]), ["README.md", "a", "big", "config.json"], ["a/b", "a/two.txt"]],
        "paths": [["a", ""], ["big", blob_id(FILES["big"])]],
        "snapshot": {path: content.decode() for path, content in FILES.items()},
        "part": "567",
        "failures": ["RepositoryNotFoundError", "RevisionNotFoundError", "RemoteEntryNotFoundError", "GatedRepoError"],
    }
    assert hub.asked(rf"^GET /api/{kind}s/user/name/tree/{COMMIT}$") > 3  # pages
    assert hub.asked(rf"^HEAD /(datasets/)?user/name/resolve/{COMMIT}/no$") == 1


WRITER = """
import json
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, errors, hf_hub_download
api, of = HfApi(), {"repo_type": "dataset"}
url = api.create_repo("user/new", private=True, exist_ok=True, **of)
first = api.create_commit("user/new", [CommitOperationAdd("a/large", b"1" * 5000), CommitOperationAdd("small", b"2")],
                          commit_message="first", **of)
api.create_tag("user/new", tag="v1", revision=first.oid, **of)
change = [CommitOperationAdd("a/large", b"3" * 2000), CommitOperationDelete("small")]
second = api.create_commit("user/new", change, commit_message="second", parent_commit=first.oid, **of)
proposed = api.create_commit("user/new", [CommitOperationAdd("b", b"4")], commit_message="pr", create_pr=True, **of)

def failure(ask):
    try:
        return ask()
    except Exception as error:
        return [type(error).__name__, error.response.status_code]

def tree(revision):
    found = api.list_repo_tree("user/new", recursive=True, revision=revision, **of)
    return {one.path: one.lfs.sha256 if one.lfs else one.blob_id for one in found if hasattr(one, "blob_id")}

def part(revision):
    return open(hf_hub_download("user/new", "a/large", revision=revision, **of)).read()[:3]

refs = api.list_repo_refs("user/new", include_pull_requests=True, **of)
stale = lambda: api.create_commit("user/new", [CommitOperationAdd("c", b"5")], commit_message="c",
                                  parent_commit=first.oid, **of)
print(json.dumps({
    "who": api.whoami()["name"],
    "private": api.repo_info("user/new", **of).private,
    "trees": [tree("v1"), tree("main"), tree(proposed.pr_revision)],
    "parts": [part("v1"), part("main")],
    "refs": [[(one.name, one.target_commit) for one in kind] for kind in (refs.tags, refs.branches)],
    "pulls": [one.ref for one in refs.pull_requests],
    "commits": [one.title for one in api.list_repo_commits("user/new", **of)],
    "oids": [first.oid, second.oid],
    "failures": [
        failure(stale),
        failure(lambda: api.create_tag("user/new", tag="v1", **of)),
        failure(lambda: api.create_repo("other/new", **of)),
        failure(lambda: api.repo_info("user/new", token=False, **of)),
    ],
}))
"""


def test_the_client_writes_commits_that_later_ones_leave_as_they_are(tmp_path: Path) -> None:
    hub = HubServer(page=1, part_bytes=3000)
    run = hub.run(WRITER, home=tmp_path / "home", HF_TOKEN="hf_secret")
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    first, second = found["oids"]
    one, two, attributes = sha256(b"1" * 5000), sha256(b"3" * 2000), blob_id(CREATED[".gitattributes"])
    assert found == {
        "who": "user",
        "private": True,
        "trees": [
            {".gitattributes": attributes, "a/large": one, "small": blob_id(b"2")},
            {".gitattributes": attributes, "a/large": two},
            {".gitattributes": attributes, "a/large": two, "b": blob_id(b"4")},
        ],
        "parts": ["111", "333"],
        "refs": [[["v1", first]], [["main", second]]],
        "pulls": ["refs/pr/1"],
        "commits": ["second", "first", "initial commit"],
        "oids": [first, second],
        "failures": [
            ["HfHubHTTPError", 412],
            ["HfHubHTTPError", 409],
            ["HfHubHTTPError", 403],
            ["RepositoryNotFoundError", 401],
        ],
    }


@pytest.mark.parametrize("code", ["socket.create_connection(('127.0.0.1', 9))", "socket.getaddrinfo('else.where', 80)"])
def test_a_client_that_looks_for_anything_else_fails_even_if_it_hides_that(tmp_path: Path, code: str) -> None:
    with pytest.raises(AssertionError, match=r"something else than the server:\n.*(127\.0\.0\.1', 9|else\.where)"):
        HubServer().run(f"try: {code}\nexcept Exception: pass", home=tmp_path / "home")


@pytest.mark.skipif(not can_be_alone(), reason="this machine lets nobody make a network namespace")
def test_a_client_has_no_network_but_the_server(tmp_path: Path) -> None:
    run = HubServer().run("print(sorted(os.listdir('/sys/class/net')), socket.if_nameindex())", home=tmp_path / "home")
    assert "[(1, 'lo')]" in run.stdout, run.stdout + run.stderr


def test_where_no_namespace_can_be_made_the_client_is_refused_all_but_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.helpers.hub_server.can_be_alone", lambda: False)
    hub = HubServer()
    hub.add(Repo("user/name", FILES, "model"))
    code = "from huggingface_hub import hf_hub_download as get; print(open(get('user/name', 'big')).read())"
    assert hub.run(code, home=tmp_path / "home").stdout == "0123456789\n"
    with pytest.raises(AssertionError, match="something else"):
        hub.run("socket.create_connection(('127.0.0.1', 9))", home=tmp_path / "home")
