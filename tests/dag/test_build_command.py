"""The commands build, plan and status as a script meets them: exit codes, JSON, signals, locks, a full disk."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from latentlens_dag.dag.home_lock import build_lock, lock_owner
from latentlens_dag.errors import UserError
from latentlens_dag.storage.home import Home, home_write_error, home_write_errors
from tests.dag.small_graph import opened, say, small_project

ROOT = Path(__file__).parents[2]
EVERY = 3 + 9 + 6 + 1 + 2


def _start(home: Home, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.dag.small_graph", *arguments]
    environment = {**os.environ, "LATENTLENS_HOME": str(home.root), "PYTHONWARNINGS": "ignore"}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def _run(home: Home, *arguments: str) -> tuple[int, str, str]:
    process = _start(home, *arguments)
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def _wait(done: Callable[[], bool]) -> None:
    end = time.monotonic() + 240
    while not done():
        assert time.monotonic() < end
        time.sleep(0.05)


def _asleep(home: Home, process: subprocess.Popen[str]) -> None:
    """Wait until the step sleeps."""
    _wait(lambda: (home.root / "sleeping").exists() or process.poll() is not None)
    assert process.poll() is None, process.communicate()


def _statuses(home: Home) -> set[str]:
    with opened(home) as project:
        return {run.status.value for run in project.instance.get_runs()}


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return small_project(tmp_path / "home")


def test_a_build_from_nothing_and_a_plan_before_and_after_it(home: Home) -> None:
    """What is printed, with which exit codes; --json is one document, whatever the steps print."""
    code, out, _ = _run(home, "plan", "--json", "--exit-code")
    planned = json.loads(out)
    assert (code, len(planned["parts"]), planned["building"]) == (3, EVERY, None)
    assert {(step["wall_s"], step["rows"]) for step in planned["steps"]} == {(None, None)}
    code, out, err = _run(home, "build", "--json")
    assert (code, json.loads(out)["parts"]) == (0, EVERY)
    assert "visual prints 1" in err
    code, out, err = _run(home, "plan", "--exit-code")
    assert (code, out, err) == (0, "Everything is up to date.\n", "")
    code, out, _ = _run(home, "plan", "--json", "--force", "--select", "pictures")
    step = json.loads(out)["steps"][0]
    assert (code, step["step"], step["parts"], step["rows"], step["size_bytes"]) == (
        0,
        "images/pics/pictures",
        3,
        30,
        3000,
    )
    assert 0 < step["wall_s"] < 300
    code, out, err = _run(home, "build", "--force", "--select", "visual[1]")
    assert (code, out.rpartition("\n")[0].rpartition("\n")[2][:17]) == (0, "Built 2 parts in "), out + err
    assert err.splitlines()[-1].startswith("2/2  study/s/visual[01]  "), err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_build_says_how_far_it_was_leaves_nothing_open_and_goes_on(home: Home, number: int) -> None:
    say(home, "judgements", "sleep")
    process = _start(home, "build", "--select", "judgements/V00")
    _asleep(home, process)
    with pytest.raises(UserError, match=rf"is being built .*process {process.pid} on \S+, since 20"), build_lock(home):
        pass
    process.send_signal(number)
    _, err = process.communicate(timeout=240)
    assert process.returncode == 128 + number
    assert "Interrupted in study/s/judgements[00], after 9 of 12 parts. What was finished stays" in err
    assert "Traceback" not in err and "dagster" not in err.lower()
    assert lock_owner(home) is None
    assert _statuses(home) == {"SUCCESS", "CANCELED"}
    say(home, "judgements", "1")
    with opened(home) as project:
        ran = project.build(project.select([], ["judgements/V00"]))
    assert sum(len(one.targets) for one in ran) == 3


def test_a_killed_builds_runs_are_ended_by_the_next_which_waits_where_asked_to(home: Home) -> None:
    say(home, "pictures", "sleep")
    first = _start(home, "build", "--select", "pictures")
    _asleep(home, first)
    say(home, "pictures", "1")
    second = _start(home, "build", "--select", "pictures", "--wait")
    assert second.stderr is not None
    assert f"Waiting: {home.root} is being built (process {first.pid} " in second.stderr.readline()
    code, out, _ = _run(home, "status", "--json")
    assert (code, json.loads(out)["building"]["pid"]) == (0, first.pid)
    first.kill()
    first.communicate()
    second.communicate(timeout=240)
    assert second.returncode == 0
    assert _statuses(home) == {"CANCELED", "SUCCESS"}


def test_a_run_that_was_launched_again_from_the_ui_is_not_taken_for_a_killed_builds(home: Home) -> None:
    import dagster as dg

    from latentlens_dag.dag.building.runs import cancel_orphans
    from latentlens_dag.dag.run_tags import BUILD

    with dg.DagsterInstance.ephemeral() as instance:
        ours = instance.create_run_for_job(dg.GraphDefinition("a").to_job(), tags={BUILD: "1@host"})
        other = instance.create_run_for_job(
            dg.GraphDefinition("a").to_job(),
            tags={BUILD: "1@host"},
            parent_run_id=ours.run_id,
            root_run_id=ours.run_id,
        )
        theirs = instance.create_run_for_job(dg.GraphDefinition("a").to_job())
        assert cancel_orphans(instance) == [ours.run_id]
        states = [instance.get_run_by_id(run.run_id).status.value for run in (ours, other, theirs)]
    assert states == ["CANCELED", "NOT_STARTED", "NOT_STARTED"]


def test_a_step_that_fails_is_an_error_of_its_own_name(home: Home) -> None:
    from latentlens_dag.dag.building.project import BuildError

    with opened(home) as project:
        say(home, "visual", "fail")
        with pytest.raises(BuildError, match=r"^study/s/visual\[00\] failed: the step is to fail$"):
            project.build(project.select())
        say(home, "visual", "full")
        with pytest.raises(BuildError, match=r"study/s/visual\[00\] failed: .*No space left on device"):
            project.build(project.select())


def test_a_home_that_takes_nothing_more_is_told_as_that(tmp_path: Path) -> None:
    home = small_project(tmp_path / "home")
    with opened(home):
        pass
    (home.dagster / "history" / "runs.db").unlink()
    (home.dagster / "history" / "runs.db").mkdir()
    with pytest.raises(UserError, match=r"The home .*home cannot be written \(unable to open"), opened(home):
        pass
    with pytest.raises(UserError, match="cannot be written"):
        Home(tmp_path / "home" / "source.txt").prepare()
    inside, outside = (f"[Errno 13] Permission denied: '{place}'" for place in (home.root / "a", "/elsewhere/a"))
    assert home_write_error(home, outside) is None
    assert "cannot be written (Permission denied)" in str(home_write_error(home, inside))
    with pytest.raises(UserError, match=r"cannot be written \(Read-only file system\)"), home_write_errors(home):
        raise OSError(f"LanceError(IO): {home.root}/x: Read-only file system (os error 30)")
    with pytest.raises(ValueError, match="another thing"), home_write_errors(home):
        raise ValueError("another thing")


def test_the_lock_waits_for_who_only_looks_and_says_nothing_when_it_is_free(tmp_path: Path) -> None:
    home = Home(tmp_path)
    assert lock_owner(home) is None
    with build_lock(home):
        owner = lock_owner(home)
        assert owner is not None
        assert owner.pid == os.getpid()
    assert lock_owner(home) is None
    assert (tmp_path / "build.lock").read_text() == ""
