"""What a name on the command line selects, and what is built of what that is made from."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from latentlens_dag.dag.building.selection import select
from latentlens_dag.dag.building.steps import Lineage, find_steps
from latentlens_dag.dag.keys import label
from latentlens_dag.errors import UserError
from tests.dag.small_graph import (
    JUDGED,
    PICTURES,
    SOURCE,
    SUMMARY,
    TABLE,
    TOKENS,
    VISUAL,
    opened,
    say,
    small_definitions,
)
from tests.dag.small_graph import small_project as made

GRAPH = small_definitions(Path("nowhere")).resolve_asset_graph()
UNITS = find_steps(GRAPH)
LINEAGE = Lineage(GRAPH)
B = ["00", "01", "02"]


def _asked(*names: str, studies: tuple[str, ...] = ()) -> set[str]:
    return {label(*target) for target in select(LINEAGE, UNITS, studies, names).requested}


def _labels(keys: object, partitions: list[str]) -> set[str]:
    return {label(key, partition) for key in keys for partition in partitions}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("study/s/judgements/V00", _labels([JUDGED[0]], B)),
        ("study/s/judgements", _labels(JUDGED.values(), B)),
        ("study/s/judgements/", _labels(JUDGED.values(), B)),
        ("images", _labels([PICTURES], B)),
        ("judgements/V01[2]", _labels([JUDGED[1]], ["02"])),
        ("judgements/V01[02]", _labels([JUDGED[1]], ["02"])),
        ("visual", _labels(VISUAL.values(), B)),
        ("V00", _labels([VISUAL[0], JUDGED[0]], B)),
        ("L02", {label(TABLE[2], None)}),
        ("interpretability", {label(SUMMARY, None)}),
        ("s[1]", _labels([*VISUAL.values(), *JUDGED.values(), TOKENS], ["01"])),
    ],
)
def test_a_name_is_a_key_its_beginning_or_parts_of_it_with_or_without_a_partition(
    name: str, expected: set[str]
) -> None:
    assert _asked(name) == expected


def test_names_add_up_and_a_study_bounds_them_to_it_and_what_it_is_made_from() -> None:
    assert _asked("V00[0]", "L01") == {*_labels([VISUAL[0], JUDGED[0]], ["00"]), label(TABLE[1], None)}
    assert _asked("pictures", studies=("s",)) == _labels([PICTURES], B)
    with pytest.raises(UserError, match="L01"):
        _asked("L01", studies=("s",))
    assert _asked(studies=("s",)) == {label(SUMMARY, None)} | _labels([*VISUAL.values(), *JUDGED.values(), TOKENS], B)


def test_of_what_a_partition_is_made_from_only_what_it_reads_is_selected() -> None:
    """The judgements of a batch read their own states, and the tokens, hence the pictures, of all batches."""
    chosen = select(LINEAGE, UNITS, [], ["judgements/V01[2]"])
    made_from = _labels([VISUAL[1]], ["02"]) | _labels([TOKENS, PICTURES], B) | {label(SOURCE, None)}
    assert {label(*target) for target in chosen.targets - chosen.requested} == made_from
    chosen = select(LINEAGE, UNITS, [], ["visual/V01[2]"])
    assert {label(*target) for target in chosen.targets} == _labels([VISUAL[1], PICTURES], ["02"]) | {
        label(SOURCE, None)
    }


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("study/s/jugements", "Near to it: .*study/s/judgements"),
        ("V07", "Near to it: V0"),
        ("visuals/V00", "Near to it: visual/V00"),
        ("nothing like it at all", "There are: images/pics/pictures, index/words/table, study/s/interpretability"),
        ("judgements[3]", r"has the partitions 00 to 02, not '3'"),
        ("interpretability[0]", "has no partitions"),
        ("judgements[", "cannot be read. Write a key"),
        ("judgements//V00", "cannot be read"),
        ("", "cannot be read"),
    ],
)
def test_a_wrong_name_is_answered_with_those_near_to_it(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        _asked(name)
    with pytest.raises(UserError, match="There is no study 't'"):
        _asked(studies=("t",))


@pytest.fixture
def project(tmp_path: Path) -> Iterator[object]:
    with opened(made(tmp_path / "home")) as one:
        one.observe(one.select())
        one.build(one.select())
        yield one


def _built(project: object, *names: str, force: bool = False) -> list[str]:
    return [
        label(need.key, need.partition)
        for ran in project.build(project.select([], names), force)
        for need in ran.targets
    ]


def test_what_is_asked_for_is_forced_and_what_it_is_made_from_is_run_only_as_needed(project: object) -> None:
    assert _built(project, "judgements/V01[2]", force=True) == ["study/s/judgements/V01[02]"]
    planned = project.plan(project.select([], ["visual[1]"]), force=True)
    assert [str(need) for need in planned] == [f"study/s/visual/V0{layer}[01]: forced" for layer in (0, 1)]
    changed = project.home.root / "source.txt"
    changed.write_text("two")
    project.observe(project.select())
    assert _built(project, "visual/V00[1]", force=True) == ["images/pics/pictures[01]", "study/s/visual/V00[01]"]


def test_the_plan_holds_all_that_a_build_comes_to_run(project: object) -> None:
    """Other tokens of one batch make the judgements of all batches stale; the plan says so before it is known."""
    say(project.home, "visual", "2")
    instance, graph = project.instance, project.graph
    assert project.plan(project.select()) == []
    visual = graph.get(TOKENS).assets_def
    assert dg.materialize([visual], instance=instance, partition_key="01", selection=[TOKENS]).success
    say(project.home, "judgements", "2")
    planned = {label(need.key, need.partition) for need in project.plan(project.select())}
    built = set(_built(project))
    assert built == planned == _labels(JUDGED.values(), B) | {label(SUMMARY, None)}


def test_staleness_read_at_once_is_as_dagster_reads_it(project: object) -> None:
    from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus

    from latentlens_dag.dag.building.staleness import _Context, find_stale

    targets = [target for unit in project.steps for target in unit.targets()]
    (project.home.root / "source.txt").write_text("two")
    for names in (["pictures[1]"], ["visual/V00[1]"], ["visual_tokens"]):
        project.observe(project.select())
        say(project.home, "pictures", names[0])
        say(project.home, "visual", names[0])
        project.build(project.select([], names))
        plain = CachingStaleStatusResolver(project.instance, project.graph, _Context(project.instance))
        expected = [target for target in targets if plain.get_status(*target) != StaleStatus.FRESH]
        found = find_stale(project.lineage, project.instance, project.store, targets)
        assert [*found] == expected != []
