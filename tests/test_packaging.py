"""What the source distribution and the wheel contain."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

from latentlens_dag.models.families.registry import NEED_TORCHVISION
from latentlens_dag.testing import tiny_families
from latentlens_dag.testing.families import BUILDERS
from latentlens_dag.testing.unmapped_families import UNMAPPED_BUILDERS

ROOT = Path(__file__).parents[1]
BUILT = ["latentlens_dag", "dashboards", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"]
"""What building a distribution reads of a checkout."""


def _build(kind: str, source: Path, output: Path) -> Path:
    """The sdist or wheel of the checkout `source`."""
    code = f"import sys, setuptools.build_meta as backend; backend.build_{kind}(sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, output], cwd=source, check=True, capture_output=True)
    (built,) = output.iterdir()
    return built


def _files(folder: Path) -> set[str]:
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkout")
    for name in BUILT:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy2
        copy(ROOT / name, folder / name)
    (folder / "tests").mkdir()
    shutil.copy2(__file__, folder / "tests")
    return _build("sdist", folder, tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the source distribution, as `pip install` builds it."""
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    return _build("wheel", folder / sdist.name.removesuffix(".tar.gz"), tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the wheel was installed into, which has nothing else."""
    target = tmp_path_factory.mktemp("installed")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-compile"]
    subprocess.run([*command, "--target", target, wheel], check=True, capture_output=True)
    return target


def test_the_wheel_has_every_file_of_the_package_and_the_pages_but_the_training_of_the_demo(wheel: Path) -> None:
    package = {f"latentlens_dag/{file}" for file in _files(ROOT / "latentlens_dag") if not file.startswith("demo/")}
    pages = {f"latentlens_dag/dashboards/{file}" for file in _files(ROOT / "dashboards")}
    with zipfile.ZipFile(wheel) as archive:
        contents = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert contents == package | pages


def test_the_source_distribution_has_neither_the_training_of_the_demo_nor_tests(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        contents = {member.name.partition("/")[2] for member in archive if member.isfile()}
    folders = {name.split("/")[0] for name in contents if "/" in name}
    assert {folder for folder in folders if not folder.endswith(".egg-info")} == set(BUILT[:2])
    assert not [name for name in contents if name.startswith("latentlens_dag/demo/")]


def test_nothing_installed_names_the_training_of_the_demo(installed: Path) -> None:
    naming = [
        path.name
        for path in installed.rglob("*")
        if path.is_file()
        and any(name in path.read_bytes() for name in (b"latentlens_dag.demo", b"latentlens_dag/demo"))
    ]
    assert naming == []


def _run_installed(installed: Path, folder: Path, code: str, *arguments: object) -> str:
    """The output of code that imports the installed copy, run in another folder."""
    # Without `site`, which would put the checkout of an editable installation on the path.
    path = os.pathsep.join([str(installed), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")])
    command = [sys.executable, "-S", "-c", code, *arguments]
    run = subprocess.run(command, cwd=folder, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_an_installed_copy_runs_from_any_folder(installed: Path, tmp_path: Path) -> None:
    code = """
import importlib.util, latentlens_dag, sys
from latentlens_dag.cli.main import main
assert latentlens_dag.__file__.startswith(sys.argv.pop()), latentlens_dag.__file__
assert importlib.util.find_spec("latentlens_dag.demo") is None
main()
"""
    assert "where_word" in _run_installed(installed, tmp_path, code, "query", installed)


def test_an_installed_copy_makes_a_tiny_model_of_every_family_that_shows_what_it_sees(
    installed: Path, tmp_path: Path
) -> None:
    code = """
import json, sys
from pathlib import Path
from PIL import Image
import latentlens_dag
from latentlens_dag.models.loading import load_vlm
from latentlens_dag.testing import tiny_families, tiny_vlm
assert latentlens_dag.__file__.startswith(sys.argv[1]), latentlens_dag.__file__
tokens = {}
for family in tiny_families():
    vlm = load_vlm(tiny_vlm(family, Path(family)), device="cpu")
    tokens[family] = len(vlm.visual_states([Image.new("RGB", (150, 100))], [0, 1]).tokens)
print(json.dumps(tokens))
"""
    tokens = json.loads(_run_installed(installed, tmp_path, code, installed).splitlines()[-1])
    assert list(tokens) == tiny_families()
    assert (set(BUILDERS) | set(UNMAPPED_BUILDERS)) - set(tokens) <= NEED_TORCHVISION
    assert min(tokens.values()) > 0
