"""Pulls to which something happens at one request after the other: `make test` takes a sample, `make soak` all."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.helpers.hub_server import COMMIT, Fault, HubServer, Repo
from tests.helpers.small_release import Tables, files_of, release_tables, write_release

# Pulls one repository after the other, each until it succeeds, and looks at what was verified after every failure.
_CLIENT = """
import json, time
time.sleep = lambda seconds: None  # between retries
from pathlib import Path
from latentlens_dag.errors import UserError
from latentlens_dag.release import pull, verified_files
pull._AT_ONCE = 1  # so that the requests come in one order

def outcome(repo, right):
    told = []
    for _ in range(14):
        try:
            return [told, str(pull.pull_release(repo, "v1.0.0").folder)]
        except UserError as error:
            told.append(str(error))
        known = verified_files.verified_release(repo, sys.argv[3])
        for path in known.verified if known else []:
            assert (known.folder / path).read_bytes() == (right / path).read_bytes(), path
    return [told, None]

print(json.dumps({repo: outcome(repo, Path(sys.argv[2])) for repo in json.loads(sys.argv[1])}))
"""


def few_tables() -> Tables:
    """A release of few files, so that a pull of it is few requests."""
    tables = release_tables({"one": ("dog",)})
    return {path: table for path, table in tables.items() if path.partition("/")[0] in ("images", "diversity")}


def check_faults(tmp_path: Path, kind: Any, times: int = 1, every: int = 1, **headers: str) -> list[str]:
    """Let something happen at every request of a pull in turn; every pull must end right in the end.

    Args:
        tmp_path: an empty folder.
        kind: as of `Fault`.
        times: at how many requests it happens, from the one whose turn it is.
        every: take only every N-th request.
        headers: of the answer.

    Returns:
        What was told.
    """
    release = write_release(tmp_path / "release", tables=few_tables())
    requests = _requests(release, tmp_path / "count")
    hub = HubServer(page=3)
    turns = range(1, requests + 1, every)
    for turn in turns:
        hub.add(Repo(f"user/turn{turn}", files_of(release), refs=("main", "v1.0.0")))
        hub.faults.append(Fault(kind, f"user/turn{turn}/", at=turn, times=times, headers=headers))
    told: list[str] = []
    for repo, (failures, folder) in _pulled(hub, release, tmp_path / "home").items():
        assert folder is not None, failures
        assert Path(folder).name == COMMIT and files_of(Path(folder)) == files_of(release), repo
        assert all(f"{repo} of the Hub" in failure for failure in failures), failures
        told += failures
    assert all(fault.seen >= fault.at for fault in hub.faults)
    return told


def _requests(release: Path, home: Path) -> int:
    """How many requests a pull makes to which nothing happens."""
    hub = HubServer(page=3)
    hub.add(Repo("user/small", files_of(release), refs=("main", "v1.0.0")))
    _pulled(hub, release, home)
    return hub.asked("user/small/")


def _pulled(hub: HubServer, release: Path, home: Path) -> dict[str, Sequence[Any]]:
    repos = [name for _, name in hub.repos]
    run = hub.run(_CLIENT, json.dumps(repos), str(release), COMMIT, home=home)
    assert run.returncode == 0, run.stderr
    found: dict[str, Sequence[Any]] = json.loads(run.stdout)
    return found
