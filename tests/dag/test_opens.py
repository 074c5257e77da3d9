"""How often a build opens the files that are large or many: weights and images, counted by the kernel.

A cost that a model of 15 GB or a folder of 100,000 images multiplies, and that no tiny project shows otherwise.
"""

from collections import Counter
from collections.abc import Iterator

import pytest

from latentlens_dag.dag.building.listener import BuildListener
from latentlens_dag.testing import tiny_project
from tests.dag.conftest import opened
from tests.helpers.file_opens import OPENS_OF_A_LOAD, Counts, counted_opens

SHARDS, BATCHES = 8, 4
WEIGHTS, IMAGE = ".safetensors", ".png"
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


def _of(opens: Opens, step: str, kind: str) -> dict[str, int]:
    return {name: times for name, times in opens[step].items() if name.endswith(kind)}


def _in_all(opens: Opens, kind: str) -> Counter[str]:
    return sum((Counter(_of(opens, step, kind)) for step in opens), Counter())


def test_all_lenses_were_built_and_what_they_read_is_counted(opens: Opens) -> None:
    assert {"study/tiny/latentlens", "study/tiny/logitlens", "study/tiny/embeddinglens"} <= set(opens)
    assert len(_of(opens, OBSERVATION, IMAGE)) == len(_of(opens, "images/pictures/pictures", IMAGE)) == 4
    assert len(_in_all(opens, WEIGHTS)) == 1


@pytest.mark.parametrize("kind", [WEIGHTS, IMAGE])
def test_a_file_is_opened_once_for_its_hash_by_whatever_number_of_sources(opens: Opens, kind: str) -> None:
    assert set(_of(opens, OBSERVATION, kind).values()) == {1}


def test_a_build_loads_a_model_once(opens: Opens) -> None:
    of_steps = _in_all(opens, WEIGHTS) - Counter(_of(opens, OBSERVATION, WEIGHTS))
    assert max(of_steps.values()) <= OPENS_OF_A_LOAD


def test_steps_open_no_weights_while_the_model_is_held(opens: Opens) -> None:
    """Those of all shards, batches and lenses, as the checks of the model have loaded it whole."""
    assert [step for step in opens if _of(opens, step, WEIGHTS)] == [OBSERVATION, "study/tiny/model_checks"]


def test_a_build_opens_an_image_once_more_for_its_picture_and_its_states(opens: Opens) -> None:
    assert max(_in_all(opens, IMAGE).values()) <= 2


def test_a_build_with_nothing_to_do_opens_none_of_them(opens: Opens) -> None:
    assert opens[NOTHING_TO_DO] == Counter()
