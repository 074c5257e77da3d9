"""A small release as it is staged, with files that travel in both ways, and a client that publishes it.

What a newcomer gets wrong: the client is a process of its own, so what it is told goes there and back as JSON.
"""

import json
import random
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from latentlens_dag.release.manifest import MANIFEST, build_manifest, manifest_text
from tests.helpers.hub_server import HubServer

TOKEN = "hf_secret"
CARD = "---\nlicense: mit\n---\n# A release\n"
LEAST_LARGE = 1000
"""Bytes; files of so many or more travel ahead of the commit."""


def content(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


FILES = {
    "README.md": CARD.encode(),
    "queries/words.sql": b"SELECT 1",
    "parts/a.bin": content(1, 50_000),
    "parts/b.bin": content(2, 30_000),
    "parts/small.bin": content(3, 300),
}


def stage(folder: Path, files: Mapping[str, bytes] = FILES, name: str = "demo") -> Path:
    """Write the files of a release, and the manifest that fits; files of before go."""
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    for path, one in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(one)
    text = manifest_text(build_manifest(folder, "tables", name, {}, "0.1.0"))
    (folder / MANIFEST).write_text(text, encoding="utf-8")
    return folder


def held(folder: Path) -> dict[str, bytes]:
    """What a staged folder holds, by path."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def published(hub: HubServer, home: Path, cases: Iterable[tuple[Path, str, dict[str, Any]]]) -> list[dict[str, Any]]:
    """What one process makes of several publications, each of a folder to user/NAME; they never tell the token."""
    arguments = json.dumps([(str(folder), name, how) for folder, name, how in cases])
    run = hub.run(_SEVERAL, arguments, home=home, HF_TOKEN=TOKEN)
    assert run.returncode == 0, run.stderr
    assert TOKEN not in run.stdout + run.stderr
    outcomes: list[dict[str, Any]] = json.loads(run.stdout)
    return outcomes


_SEVERAL = """
import json, time
waits = []
time.sleep = waits.append
from pathlib import Path
from latentlens_dag.errors import UserError
from latentlens_dag.publish.publish import PublicationError, publish

def outcome(folder, name, how):
    waits.clear()
    try:
        done = publish(Path(folder), f"user/{name}", **how)
        facts = {"error": None, "commit": done.commit, "committed": done.committed, "pull": done.pull_request}
    except (UserError, PublicationError) as error:
        facts = {"error": type(error).__name__, "message": str(error)}
    return {**facts, "waits": list(waits)}

print(json.dumps([outcome(*one) for one in json.loads(sys.argv[1])]))
"""
