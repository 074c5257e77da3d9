"""What several test modules share. Threads are few, so that tests may run side by side."""

import os
import signal
import tempfile

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_MODULES_CACHE", tempfile.mkdtemp(prefix="latentlens-modules-"))  # copies of models' code
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("LANCE_LOG", "error")
os.environ.setdefault("POLARS_MAX_THREADS", "2")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that wait must not take a processor from the others

from collections.abc import Iterator
from pathlib import Path

import pytest

from latentlens_dag.testing import tiny_llava

# A shell that starts tests in the background has them ignore Ctrl-C, which what they start would inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)

_LONGEST = {"test_kills", "test_demo", "test_dagster_dev", "test_hub_model"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Modules that take minutes come first: the last of them would be waited for while all other workers are idle."""
    items.sort(key=lambda item: item.path.stem not in _LONGEST)


@pytest.fixture(scope="session")
def llava_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llava(tmp_path_factory.mktemp("tiny_llava"))


@pytest.fixture(scope="session")
def llava(llava_folder: Path) -> Iterator[object]:
    from latentlens_dag.models.loading import load_vlm

    return load_vlm(llava_folder, device="cpu")


@pytest.fixture(scope="session")
def bidirectional(tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    """A VLM whose language model reads text in both directions."""
    from latentlens_dag.models.loading import load_vlm

    return load_vlm(tiny_llava(tmp_path_factory.mktemp("bidirectional"), bidirectional=True), device="cpu")
