"""The files that developers and CI set the project up with."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CONSTRAINTS = (ROOT / "constraints-dev.txt").read_text(encoding="utf-8").splitlines()
UNPINNED = re.compile(r"torch(vision)?|triton|nvidia-.*|cuda-.*")
"""Packages of which every machine needs a build of its own."""
HOOKS = [
    hook
    for repository in yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    for hook in repository["hooks"]
]


def _pinned() -> dict[str, Version]:
    """The versions of constraints-dev.txt by canonical name."""
    pairs = (line.split("==") for line in CONSTRAINTS)
    return {canonicalize_name(name): Version(version) for name, version in pairs}


def test_a_constraint_is_a_name_and_a_version_and_no_address_option_or_path() -> None:
    assert [line for line in CONSTRAINTS if not re.fullmatch(r"[\w.-]+==[\w.!-]+", line)] == []
    assert "://" not in "".join(CONSTRAINTS)


def test_no_build_of_torch_is_pinned() -> None:
    assert [name for name in _pinned() if UNPINNED.fullmatch(name)] == []


def test_every_dependency_is_pinned_once_to_a_version_that_pyproject_allows() -> None:
    pinned = _pinned()
    assert len(pinned) == len(CONSTRAINTS)
    dependencies = [
        *PROJECT["dependencies"],
        *(line for extra in PROJECT["optional-dependencies"].values() for line in extra),
    ]
    for dependency in map(Requirement, dependencies):
        name = canonicalize_name(dependency.name)
        if not UNPINNED.fullmatch(name):
            assert dependency.specifier.contains(pinned[name]), dependency


@pytest.mark.parametrize("hook", HOOKS, ids=lambda hook: hook["id"])
def test_a_hook_runs_a_program_of_the_environment(hook: dict[str, Any]) -> None:
    (program,) = (word for word in hook["entry"].split() if word.startswith(".venv/bin/"))
    assert hook["language"] == "system"
    assert os.access(Path(sys.executable).with_name(Path(program).name), os.X_OK)


def test_hosted_ci_runs_the_script_of_ci_on_ubuntu_with_the_oldest_python() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
    (job,) = workflow["jobs"].values()
    assert job["runs-on"].startswith("ubuntu")
    assert [step["run"] for step in job["steps"] if "run" in step] == [".ci/run"]
    assert os.access(ROOT / ".ci/run", os.X_OK)
    (python,) = (step["with"] for step in job["steps"] if step.get("uses", "").startswith("actions/setup-python@"))
    assert f">={python['python-version']}" == PROJECT["requires-python"]
    assert all((ROOT / file).is_file() for file in python["cache-dependency-path"].split())


@pytest.mark.parametrize(("user", "prefix"), [("0", ""), ("1001", "sudo ")])
def test_ci_installs_chromium_as_root_and_then_checks_and_tests(user: str, prefix: str, tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    calls = tmp_path / "calls"
    for name in ("apt-get", "make", "sudo"):
        (programs / name).write_text(f'#!/bin/sh\necho {name} "$@" >> {calls}\n', encoding="utf-8")
    (programs / "id").write_text(f"#!/bin/sh\necho {user}\n", encoding="utf-8")
    for program in programs.iterdir():
        program.chmod(0o755)
    for name in ("bash", "dirname"):
        (programs / name).symlink_to(str(shutil.which(name)))
    subprocess.run([ROOT / ".ci/run"], env={"PATH": str(programs)}, check=True)
    first, second, *rest = calls.read_text(encoding="utf-8").splitlines()
    assert first.startswith(f"{prefix}apt-get update")
    assert second.startswith(f"{prefix}apt-get install") and second.endswith("chromium")
    assert rest == ["make check", "make test"]
