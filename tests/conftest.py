"""What several test modules share. Threads are few, so that tests may run side by side."""

import gc
import os
import signal
import tempfile

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_MODULES_CACHE", tempfile.mkdtemp(prefix="latentlens-modules-"))  # copies of models' code
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("LANCE_LOG", "error")
os.environ.setdefault("POLARS_MAX_THREADS", "2")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that wait must not take a processor from the others
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny models gain nothing by more
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from collections.abc import Iterator
from pathlib import Path

import pytest

from latentlens_dag.testing import tiny_llava

# A shell that starts tests in the background has them ignore Ctrl-C, which what they start would inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)

_LONGEST = (
    "dag/building/test_kills",
    "demo/test_demo",
    "dag/test_dagster_dev",
    "dag/building/test_project",
    "dag/test_costs",
    "dag/test_text_study",
    "dag/test_hub_model",
    "dag/building/test_garbage",
    "dag/test_image_source",
    "dag/test_remote_code",
    "dag/test_invariance",
    "models/test_checkpoints",
    "models/test_hub_models",
    "dashboards/test_sessions",
    "dashboards/test_ask",
)
"""The modules that take longest, the longest first, as `pytest --durations` measured them."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long modules come first: the last of them would be waited for while all other workers are idle."""
    order = {name: number for number, name in enumerate(_LONGEST)}
    here = Path(__file__).parent
    items.sort(key=lambda item: order.get(item.path.relative_to(here).with_suffix("").as_posix(), len(order)))


@pytest.fixture(scope="module", autouse=True)
def few_objects_to_look_through() -> None:
    """Keep what modules and libraries hold out of the garbage collector's sight.

    A full collection takes a second where torch, transformers and Dagster are imported: a quarter of a tiny build's
    time went into such. What a test makes is collected as ever, if not as often.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)


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
