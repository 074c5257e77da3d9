"""How often a build opens the files that are large or many: weights and images, counted by the kernel.

A cost that a model of 15 GB or a folder of 100,000 images multiplies, and that no tiny project shows otherwise.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import pytest

from latentlens_dag.dag.building.listener import BuildListener
from latentlens_dag.testing import tiny_project
from tests.dag.conftest import opened
from tests.helpers.file_opens import LOADS, OPENS_OF_A_LOAD, Counts, counted_opens

SHARDS, BATCHES = 8, 4
OBSERVATION, NOTHING_TO_DO = "observation", "a build with nothing to do"

Opens = dict[str, Counter[str]]
"""By step, how often each file was opened; steps of all partitions together."""


class _ByStep(BuildListener):
    """Counts the opens of each step."""

    def __init__(self, opens: Counts) -> None:
        self._opens = opens
        self.found: Opens = {}

    def finished(self, step: str, partition: str | None, wall_s: float) -> None:
        self.count(step)

    def count(self, what: str) -> None:
        opens = {file.name: times for file, times in self._opens().items() if times}
        self.found.setdefault(what, Counter()).update(opens)


@pytest.fixture(scope="module")
def opens(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opens]:
    """The opens of a build from nothing and of one that finds nothing to do, in one process."""
    project = tiny_project(tmp_path_factory.mktemp("opens"), SHARDS, BATCHES)
    files = [*project.rglob("*.safetensors"), *(project / "assets" / "tiny" / "pictures").iterdir()]
    with counted_opens(files) as counts:
        by_step = _ByStep(counts)
        for after in ("after the last step", NOTHING_TO_DO):
            with opened(project) as one:
                one.observe(selection := one.select())
                by_step.count(OBSERVATION if after != NOTHING_TO_DO else after)
                one.build(selection, listener=by_step)
                by_step.count(after)
        yield by_step.found


def _of(opens: Opens, step: str, is_one: Callable[[str], bool]) -> dict[str, int]:
    return {name: times for name, times in opens[step].items() if is_one(name)}


def _weights(name: str) -> bool:
    return name.endswith(".safetensors")


def _image(name: str) -> bool:
    return name.endswith(".png")


def _not_yet(at_present: int) -> pytest.MarkDecorator:
    return pytest.mark.xfail(strict=True, raises=AssertionError, reason=f"{at_present} times")


def test_every_partition_of_every_lens_was_built_and_read_what_is_counted(opens: Opens) -> None:
    assert {"study/tiny/latentlens", "study/tiny/logitlens", "study/tiny/embeddinglens"} <= set(opens)
    assert len(_of(opens, OBSERVATION, _image)) == len(_of(opens, "images/pictures/pictures", _image)) == 4
    assert len(_of(opens, "study/tiny/visual", _weights)) == 1


@pytest.mark.parametrize(
    ("step", "is_one", "most"),
    [
        (OBSERVATION, _image, 1),
        pytest.param(OBSERVATION, _weights, 1, marks=_not_yet(2)),
        pytest.param("images/pictures/pictures", _image, 1, marks=_not_yet(BATCHES + 1)),
        pytest.param("study/tiny/visual", _image, 1, marks=_not_yet(2)),
        (NOTHING_TO_DO, _image, 0),
        (NOTHING_TO_DO, _weights, 0),
    ],
)
def test_a_file_is_opened_once_by_each_step_that_reads_it(
    opens: Opens, step: str, is_one: Callable[[str], bool], most: int
) -> None:
    assert max(_of(opens, step, is_one).values(), default=0) <= most


@_not_yet((1 + BATCHES + 2 * BATCHES + SHARDS) * OPENS_OF_A_LOAD)
def test_a_build_loads_a_model_twice_at_most(opens: Opens) -> None:
    assert _opens_of_weights(opens, [step for step in opens if step != OBSERVATION]) <= LOADS * OPENS_OF_A_LOAD


def _opens_of_weights(opens: Opens, steps: Sequence[str]) -> int:
    return sum(sum(_of(opens, step, _weights).values()) for step in steps)
