"""A warm process is what `python -c` starts, but for what it has imported."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.helpers.warm_process import FIRST_PASSED, WarmProcess

FACTS = """
import json, os, sys, threading
json.dump({
    "arguments": sys.argv, "path": sys.path, "folder": os.getcwd(), "environment": dict(os.environ),
    "main": sorted(set(vars(sys.modules["__main__"])) & {"json", "os", "sys", "threading"}), "name": __name__,
    "threads": threading.active_count(), "leader": os.getpid() == os.getsid(0) == os.getpgid(0),
}, sys.stdout)
"""
HELD = "import time\nopen('started', 'w').close()\ntime.sleep(600)"


def _ran(folder: Path, code: str, *arguments: str, **environment: str) -> tuple[int, str, str]:
    process = WarmProcess(code, *arguments, folder=folder, environment={**os.environ, **environment})
    return process.wait(120), *process.output()


def test_arguments_path_folder_environment_and_the_main_module_are_those_of_a_new_process(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}/other", "ONLY": "here"}
    command = [sys.executable, "-c", FACTS, "one", "two words"]
    new = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, start_new_session=True)
    code, out, errors = _ran(tmp_path, FACTS, "one", "two words", PYTHONPATH=environment["PYTHONPATH"], ONLY="here")
    assert (code, errors) == (0, "")
    assert json.loads(out) == json.loads(new.stdout)


def test_nothing_that_reads_its_settings_when_it_is_imported_is_there_and_no_thread(tmp_path: Path) -> None:
    code = "import os, sys, json; print(json.dumps([sorted(sys.modules), len(os.listdir('/proc/self/task'))]))"
    _, out, _ = _ran(tmp_path, code)
    modules, threads = json.loads(out)
    assert {"torch", "dagster", "scipy.stats"} <= set(modules)
    own = ("latentlens_dag", "tests", "huggingface_hub", "transformers", "datasets", "polars", "lance", "streamlit")
    assert [name for name in modules if name.split(".")[0] in own] == []
    assert threads == 1


@pytest.mark.parametrize(
    ("code", "ends"),
    [("raise SystemExit(3)", 3), ("raise ValueError('no')", 1), ("import os; os.kill(os.getpid(), 9)", -9), ("", 0)],
)
def test_it_ends_as_a_new_process_does(tmp_path: Path, code: str, ends: int) -> None:
    found, _, errors = _ran(tmp_path, code)
    assert found == ends
    assert ("ValueError: no" in errors) == ("ValueError" in code)


def test_what_is_registered_for_the_end_is_run(tmp_path: Path) -> None:
    assert _ran(tmp_path, "import atexit; atexit.register(print, 'the end')")[1] == "the end\n"


def test_it_is_killed_with_what_it_started_and_others_go_on(tmp_path: Path) -> None:
    started = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {HELD!r}])"
    process = WarmProcess(started, folder=tmp_path, environment=os.environ)
    while not (tmp_path / "started").exists():
        time.sleep(0.01)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    deadline = time.monotonic() + 30
    with pytest.raises(ProcessLookupError):
        while time.monotonic() < deadline:  # what it started ends a little later, and is then nobody's child
            os.killpg(process.pid, 0)
            time.sleep(0.01)
    assert _ran(tmp_path, "print(1)")[:2] == (0, "1\n")


def test_descriptors_are_passed_and_no_others(tmp_path: Path) -> None:
    read, write = os.pipe()
    code = f"import os; os.write({FIRST_PASSED}, b'here'); print(sorted(map(int, os.listdir('/proc/self/fd'))))"
    process = WarmProcess(code, folder=tmp_path, environment=os.environ, passed=[write])
    process.wait(120)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        assert pipe.read() == b"here"
    *few, last = json.loads(process.output()[0])
    assert few[:3] == [0, 1, 2] and FIRST_PASSED in [*few, last]
    assert len(few) <= 4  # and the folder that is listed
