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

from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from unittest.mock import patch

import pytest

from latentlens_dag.testing import tiny_llava

# A shell that starts tests in the background has them ignore Ctrl-C, which what they start would inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)

_LONGEST = (
    "dag/test_dagster_dev",
    "dashboards/test_views",
    "models/families/test_prompts",
    "models/families/test_families",
    "demo/test_demo",
    "models/test_vocabulary_parts",
    "release/test_pull",
    "dashboards/test_sessions",
    "dag/building/test_project",
    "dashboards/test_shapes",
    "dag/building/test_kills",
    "dag/test_costs",
    "models/families/test_with_torchvision",
    "dag/test_image_source",
    "study/test_differences",
    "dashboards/test_browser",
    "dag/test_hub_model",
    "dashboards/test_compare",
    "dag/test_reading_once",
    "models/test_hub_models",
    "search/test_larger_than_memory",
    "dag/test_build_command",
    "dag/test_text_study",
    "dashboards/test_released",
    "test_packaging",
    "dashboards/test_lifecycle",
    "dashboards/test_ask",
    "real/test_text_study",
    "dag/test_remote_code",
    "dag/test_new_lens",
    "dag/building/test_garbage",
    "dag/test_invariance",
    "cli/test_dev",
    "index/test_approximate",
    "index/test_contextual_index",
    "models/test_checkpoints",
    "models/test_remote_code",
    "publish/test_publish",
)
"""Modules that take long, about the longest first: what is written below the results of all tests says if one lacks."""
_WRITTEN = 20
"""Modules whose times are written when all tests have run."""


def _module(path: str | Path) -> str:
    """tests/dag/test_costs.py is dag/test_costs."""
    return Path(path).absolute().relative_to(Path(__file__).parent).with_suffix("").as_posix()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long modules come first: the last of them would be waited for while all other workers are idle."""
    order = {name: number for number, name in enumerate(_LONGEST)}
    items.sort(key=lambda item: order.get(_module(item.path), len(order)))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Where the time of the suite goes, so that it is seen when it grows."""
    times: Counter[str] = Counter()
    for report in (one for reports in terminalreporter.stats.values() for one in reports):
        if isinstance(report, pytest.TestReport):
            times[_module(terminalreporter.config.rootpath / report.nodeid.split("::")[0])] += report.duration
    if len(times) > 2 * _WRITTEN:
        terminalreporter.section(f"the {_WRITTEN} longest of {len(times)} modules, {sum(times.values()):.0f} s in all")
        for name, seconds in times.most_common(_WRITTEN):
            late = "" if name in _LONGEST else "  name it in _LONGEST of tests/conftest.py"
            terminalreporter.write_line(f"{seconds:7.1f} s  {name}{late}")


@pytest.fixture(scope="session", autouse=True)
def no_processes_that_copy_what_steps_print() -> Iterator[None]:
    """For each run, Dagster starts four processes that copy what its steps print to the terminal.

    They are a tenth of a tiny build's time. What is printed goes to Dagster's files as ever; processes that tests start
    have all of Dagster.
    """
    from dagster._core.execution import compute_logs

    with patch.object(compute_logs, "tail_to_stream", lambda path, stream: nullcontext((None, None))):
        yield


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
