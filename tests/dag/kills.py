"""Builds that are killed at random moments and then go on: what must hold in the end, whatever the moments were."""

import os
import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import dagster as dg

from latentlens_dag.index.lance_files import open_table
from latentlens_dag.storage.home import Home
from latentlens_dag.testing import tiny_project
from tests.helpers.command_line import run_command
from tests.helpers.warm_process import WarmProcess

_MAIN = "from latentlens_dag.cli.main import main; main()"


def check_kills(folder: Path, kills: int, seed: int) -> None:
    """Kill builds of a small study so many times; after each kill a build goes on, and may be killed too."""
    fresh = tiny_project(folder / "fresh", shards=1, batches=1)
    text = (fresh / "assets/tiny/defs.yaml").read_text()
    (fresh / "assets/tiny/defs.yaml").write_text(text.replace("layers: [0, 1, 2]", "layers: [0, 2]"))
    undisturbed = Path(shutil.copytree(fresh, folder / "undisturbed"))
    start = time.monotonic()
    assert not _is_killed(undisturbed, after_s=None)
    whole_s = time.monotonic() - start
    moments, done, number = random.Random(seed), 0, 0
    while done < kills:
        project = Path(shutil.copytree(fresh, folder / f"killed_{number}"))
        killed, number, start = 0, number + 1, time.monotonic()
        while done + killed < kills and _is_killed(project, moments.uniform(0.2, 1) * whole_s):
            killed += 1
        if killed:
            _run(project, "build")
            _check_same(project, undisturbed, killed)
        else:
            whole_s = time.monotonic() - start  # the machine is quicker by now
        done += killed
        shutil.rmtree(project)


def _is_killed(project: Path, after_s: float | None) -> bool:
    """Build, and kill the build after some time; False where it was done before."""
    build = WarmProcess(_MAIN, "build", folder=project, environment=os.environ)
    try:
        build.wait(after_s)
    except subprocess.TimeoutExpired:
        build.kill()
        return build.wait() == -signal.SIGKILL
    assert build.returncode == 0, build.output()[1]
    return False


def _run(project: Path, command: str) -> None:
    """What nothing disturbs needs no process of its own."""
    done = run_command(project, command)
    assert done.returncode == 0, done.stderr


def _check_same(project: Path, undisturbed: Path, killed: int) -> None:
    for _, label, times in _materializations(project):
        assert times == 1, f"{label} was finished, and built again after one of {killed} kills"
    _run(project, "clean")
    _run(undisturbed, "clean")
    one, other = project / ".latentlens/warehouse", undisturbed / ".latentlens/warehouse"
    assert _content(one) == _content(other)
    assert _shape(one) == _shape(other)


def _materializations(project: Path) -> list[tuple[dg.AssetKey, str, int]]:
    """How often each partition of each asset was built to its end."""
    home = Home(project / ".latentlens")
    with dg.DagsterInstance.from_config(str(home.dagster)) as instance:
        found: Counter[tuple[dg.AssetKey, str]] = Counter()
        for key in instance.all_asset_keys():
            for record in instance.fetch_materializations(key, limit=1000).records:
                found[key, f"{key.to_user_string()}[{record.partition_key}]"] += 1
    return [(key, label, times) for (key, label), times in found.items()]


def _content(warehouse: Path) -> dict[str, object]:
    """Parquet byte for byte, Lance tables row for row."""
    parquet = {p: p.read_bytes() for p in warehouse.rglob("*.parquet")}
    lance = {p: open_table(p).to_table().to_pydict() for p in warehouse.rglob("*.lance") if p.is_dir()}
    return {path.relative_to(warehouse).as_posix(): content for path, content in {**parquet, **lance}.items()}


def _shape(warehouse: Path) -> Counter[str]:
    """How many files each folder has: Lance gives files names by chance. No orphan is among them."""
    return Counter(p.parent.relative_to(warehouse).as_posix() for p in warehouse.rglob("*") if p.is_file())
