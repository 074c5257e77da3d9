"""Every request of a publication in turn meets every fault: main holds the old or the new, and a second run ends it."""

import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.helpers.hub_server import Fault, HubServer, Repo
from tests.helpers.publications import CARD, FILES, LEAST_LARGE, content, held, published, stage

pytestmark = pytest.mark.soak
KINDS = {
    "fails": (500, {}),
    "busy": (429, {"Retry-After": "3"}),
    "moved": (412, {}),
    "expired": (401, {}),
    "reset": ("reset", {}),
    "lost": ("lost", {}),
    "truncated": ("truncated", {}),
    "flipped": ("flipped", {}),
    "flipped_sent": ("flipped_sent", {}),
}
BEFORE = {".gitattributes": b"*.bin filter=lfs\n"}


class _Cases:
    """The same publication many times, each to a repository of its own, all with a tag."""

    def __init__(self, at: Path, exists: bool, count: int) -> None:
        self.at, self.hub = at, HubServer(page=3)
        self.names = [f"case_{number:02d}" for number in range(1, count + 1)]
        self.before: dict[str, Mapping[str, bytes]] = {}
        for name in self.names:
            if exists:
                old = {**FILES, "parts/b.bin": content(8, 20_000), "gone.bin": b"gone"}
                self.before[name] = {**BEFORE, **held(stage(at / "old" / name, old)), "theirs.md": b"Theirs."}
                self.hub.add(Repo(f"user/{name}", self.before[name], least_large=LEAST_LARGE))
            stage(at / "new" / name, {**FILES, "README.md": f"{CARD}{name}\n".encode()})

    def publish(self) -> dict[str, dict]:
        cases = [(self.at / "new" / name, name, {"tag": "v1"}) for name in self.names]
        return dict(zip(self.names, published(self.hub, self.at / "home", cases), strict=True))

    def state(self, name: str) -> str:
        """Whether main of a repository is `old`, `new`, or something that it must never be."""
        repo = self.hub.repos.get(("dataset", f"user/{name}"))
        files = {} if repo is None else {path: one for path, one in repo.main.files.items() if path[0] != "."}
        theirs = {"theirs.md": b"Theirs."} if name in self.before else {}
        if files == {**held(self.at / "new" / name), **theirs}:
            return "new"
        old = {path: one for path, one in self.before.get(name, {}).items() if path[0] != "."}
        return "old" if files == old else f"neither: {sorted(files)}"


@pytest.fixture(scope="module", params=[False, True], ids=["created", "changed"])
def requests(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[bool, int]:
    """Whether the repository exists before, and how many requests a publication makes then."""
    cases = _Cases(tmp_path_factory.mktemp("healthy"), request.param, 1)
    cases.hub.faults.append(counted := Fault("lost", "case_01", at=10**9))
    assert cases.publish()["case_01"]["error"] is None
    return request.param, counted.seen


@pytest.mark.parametrize("times", [1, 99], ids=["once", "from_then_on"])
@pytest.mark.parametrize("kind", KINDS)
def test_main_is_old_or_new_and_a_second_run_ends_it(
    tmp_path: Path, requests: tuple[bool, int], kind: str, times: int
) -> None:
    exists, count = requests
    fault, headers = KINDS[kind]
    if fault == "flipped_sent" and times > 1:
        pytest.skip("nobody can send anything over a line that damages all of it")
    cases = _Cases(tmp_path, exists, count)
    cases.hub.faults = [
        Fault(fault, rf"{name}\b", at, times, headers)  # type: ignore[arg-type]
        for at, name in enumerate(cases.names, 1)
    ]
    first = cases.publish()
    struck = sum(fault.seen >= fault.at for fault in cases.hub.faults)
    assert struck >= count - 3, "a publication of before made more requests"
    for name, outcome in first.items():
        assert cases.state(name) in ("old", "new"), (name, outcome, cases.state(name))
        if outcome["error"] is None:
            assert cases.state(name) == "new" and cases.hub.repos["dataset", f"user/{name}"].tags, (name, outcome)
        else:
            assert re.search("run again|[Ll]og in again|[Pp]ublish to|remove it there|take", outcome["message"]), (
                outcome
            )
        assert sum(outcome["waits"]) < 200, (name, outcome)
    cases.hub.faults.clear()
    for name, outcome in cases.publish().items():
        assert outcome["error"] is None and cases.state(name) == "new", (name, first[name], outcome)
        repo = cases.hub.repos["dataset", f"user/{name}"]
        assert repo.tags == {"v1": repo.head}
        assert len(repo.history) == 2 or (kind == "flipped_sent" and len(repo.history) == 3), (name, first[name])
