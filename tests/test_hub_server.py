"""The real client finds in our Hub what was put there, and nothing else anywhere."""

import json
from pathlib import Path

import pytest

from tests.hub_server import COMMIT, HubServer, Repo, blob_id, can_be_alone

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
    monkeypatch.setattr("tests.hub_server.can_be_alone", lambda: False)
    hub = HubServer()
    hub.add(Repo("user/name", FILES, "model"))
    code = "from huggingface_hub import hf_hub_download as get; print(open(get('user/name', 'big')).read())"
    assert hub.run(code, home=tmp_path / "home").stdout == "0123456789\n"
    with pytest.raises(AssertionError, match="something else"):
        hub.run("socket.create_connection(('127.0.0.1', 9))", home=tmp_path / "home")
