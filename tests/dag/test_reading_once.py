"""What a build reads of its sources: images, regions, sentences and texts."""

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from latentlens_dag.errors import UserError
from latentlens_dag.inputs import images, regions, texts
from latentlens_dag.inputs.images import forget_files
from latentlens_dag.storage.files import read_json_object
from latentlens_dag.storage.hashing import hash_file
from latentlens_dag.storage.records import ArtifactStore
from latentlens_dag.testing import tiny_project
from tests.dag.conftest import build, opened
from tests.dag.test_text_study import DEFS
from tests.helpers.changed_files import change_unseen
from tests.helpers.opened_files import opened_files

Copy = Callable[[Path], Path]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return tiny_project(tmp_path / "project", shards=8, batches=4)


@pytest.fixture(scope="module")
def built_inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with its shards and regions. Do not write to it: copy it."""
    project = tiny_project(tmp_path_factory.mktemp("built_inputs") / "project", shards=8, batches=4)
    build(project, names=["corpus/text/shards", "images/pictures/regions"])
    return project


def _pictures(project: Path) -> list[Path]:
    return sorted((project / "assets" / "tiny" / "pictures").iterdir())


def _images(project: Path) -> Path:
    return project / ".latentlens" / "warehouse" / "images" / "pictures"


def _ids(project: Path) -> list[str]:
    """Of the pictures of all batches."""
    return [image for file in _images(project).glob("batch_*") for image in pq.read_table(file)["image_id"].to_pylist()]


def _counted(monkeypatch: pytest.MonkeyPatch, module: object, name: str) -> list[object]:
    """The first arguments of a generator's calls that were begun."""
    real, begun = getattr(module, name), []

    @wraps(real)
    def count(*arguments: object) -> Iterator[object]:
        begun.append(arguments[0])
        yield from real(*arguments)

    monkeypatch.setattr(module, name, count)
    return begun


def _run(project: Path, name: str, partition: str | None = None) -> None:
    """Materialize one asset as the UI does: nothing is observed before, and no build is under way."""
    with opened(project) as one:
        job, key = one._runner.job, next(key for step in one.steps for key in step.keys if key.to_user_string() == name)
        assert (
            job.get_subset(asset_selection={key})
            .execute_in_process(instance=one.instance, partition_key=partition)
            .success
        )


def test_a_build_opens_an_image_to_observe_it_and_once_more_for_thumbnail_and_states(project: Path) -> None:
    with opened_files() as count:
        build(project, names=["study/tiny/visual"])
    assert [count[str(file)] for file in _pictures(project)] == [2] * 4
    os.utime(_pictures(project)[0])
    with opened_files() as count:
        assert build(project, names=["study/tiny/visual"]) == []
    assert [count[str(file)] for file in _pictures(project)] == [1, 0, 0, 0]


def test_a_build_reads_sentences_and_regions_once_for_all_partitions(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_sentences = _counted(monkeypatch, texts, "sentences_by_shard")
    of_regions = _counted(monkeypatch, regions, "region_rows")
    ran = build(project, names=["corpus/text/shards", "images/pictures/regions"])
    assert len([name for name in ran if re.search("shards|regions", name)]) == 8 + 4
    assert (len(of_sentences), len(of_regions)) == (1, 1)
    assert not list((project / ".latentlens" / "warehouse").rglob(".*.tmp"))


@pytest.mark.parametrize("lost", ["history", "records", "files", "damaged", "one file"])
def test_a_build_of_what_was_lost_reads_sentences_and_regions_once_too(
    built_inputs: Path, lost: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = Path(shutil.copytree(built_inputs, tmp_path / "project"))
    home, steps = project / ".latentlens", ("corpus/text/shards", "images/pictures/regions")
    warehouse, store = home / "warehouse", ArtifactStore(home / "warehouse")
    records = [record for step in steps for record in store.records(step)]
    results = {file: file.read_bytes() for record in records if (file := warehouse / record.files[0].path)}
    assert len(results) == len(records) == 8 + 4
    match lost:
        case "history":
            shutil.rmtree(home / "dagster")
        case "damaged":
            for record in records:
                store.mark_damaged(record, "by hand")
        case _:
            for record in records[::4] if lost == "one file" else records:
                path = store.path(record.asset, record.partition)
                (path if lost == "records" else warehouse / record.files[0].path).unlink()
    of_sentences = _counted(monkeypatch, texts, "sentences_by_shard")
    of_regions = _counted(monkeypatch, regions, "region_rows")
    ran = build(project, names=steps)
    assert len([name for name in ran if name.startswith(steps)]) == (3 if lost == "one file" else 12)
    assert (len(of_sentences), len(of_regions)) == (1, 1)
    assert {file: file.read_bytes() for file in results} == results
    assert not list(warehouse.rglob(".*.tmp"))


def test_a_build_reads_the_source_of_a_text_set_to_observe_it_and_once_for_all_batches(tmp_path: Path) -> None:
    here = tmp_path / "assets" / "tiny"
    here.mkdir(parents=True)
    (tmp_path / "workspace.yaml").write_text("load_from: []\n")
    (here / "defs.yaml").write_text(DEFS.split("---")[1].replace("batches: 2", "batches: 7"))
    (here / "texts.txt").write_text("\n".join(f"Text {number}." for number in range(50)))
    with opened_files() as count:
        assert len(build(tmp_path)) == 7
    assert count[str(here / "texts.txt")] == 2


def test_a_partition_that_the_ui_runs_alone_is_that_of_a_build(project: Path, tmp_path: Path) -> None:
    names = ["corpus/text/shards", "images/pictures/regions"]
    build(project, tmp_path / "whole", names)
    for name in ("corpus/text/sentences", "images/pictures/names"):
        _run(project, name)
    _run(project, "corpus/text/shards", "03")
    _run(project, "images/pictures/pictures", "02")
    _run(project, "images/pictures/regions", "02")
    home, files = project / ".latentlens" / "warehouse", Counter[str]()
    for file in [*home.rglob("*_0?.parquet"), *home.rglob("names.parquet")]:
        path = file.relative_to(home)
        assert file.read_bytes() == (tmp_path / "whole" / "warehouse" / path).read_bytes()
        files[path.parts[0]] += 1
    assert files == {"corpus": 1, "images": 3}


def test_names_are_made_without_an_observation_too_and_hash_what_changed_since(project: Path) -> None:
    first, *others = _pictures(project)
    with opened_files() as count:
        _run(project, "images/pictures/names")
    assert [count[str(file)] for file in [first, *others]] == [1] * 4
    first.write_bytes(others[0].read_bytes() + b" and more")
    with opened_files() as count:
        _run(project, "images/pictures/names")
    assert [count[str(file)] for file in [first, *others]] == [1, 0, 0, 0]
    names = pq.read_table(_images(project) / "names.parquet").to_pylist()
    expected = sorted((hash_file(file), file.name) for file in [first, *others])
    assert [(row["image_id"], row["file_name"]) for row in names] == expected


def test_an_image_that_changed_unseen_is_refused_and_the_next_build_reads_it(project: Path) -> None:
    build(project, names=["images/pictures/names"])
    first, *others = _pictures(project)
    change_unseen(first)
    with pytest.raises(UserError, match=r"picture_0\.png was changed or removed.*Build again"):
        build(project, names=["images/pictures/pictures"])
    forget_files()
    with opened_files() as count:
        build(project, names=["images/pictures/pictures"])
    assert sorted(_ids(project)) == sorted(map(hash_file, _pictures(project)))
    assert [count[str(file)] for file in [first, *others]] == [2, 1, 1, 1]  # only the first is hashed again


def test_names_are_never_of_another_state_of_the_folder_than_the_observed_one(project: Path) -> None:
    first, second, *_ = _pictures(project)
    before, names = first.read_bytes(), ["images/pictures/pictures"]
    with opened(project) as one:
        selection = one.select(names=names)
        one.observe(selection)
        first.write_bytes(second.read_bytes() + b" and more")
        with pytest.raises(UserError, match=r"folder .*pictures was changed after it was last observed.*Build again"):
            one.build(selection)
    with pytest.raises(UserError, match="in Dagster's UI, observe images/pictures/source first"):
        _run(project, "images/pictures/names")
    first.write_bytes(before)
    build(project, names=names)
    assert sorted(_ids(project)) == sorted(map(hash_file, _pictures(project)))
    first.write_bytes(second.read_bytes() + b" and more")
    build(project, names=names)
    assert sorted(_ids(project)) == sorted(map(hash_file, _pictures(project)))


def test_a_build_keeps_no_image_in_memory_when_it_ends(project: Path) -> None:
    build(project, names=["images/pictures/pictures"])
    assert len(images._read_bytes.cache) == 0


def test_pictures_that_are_equal_renamed_or_in_other_folders_are_the_same_images(project: Path) -> None:
    build(project, names=["images/pictures/pictures"])
    before, (first, second, *_) = sorted(_ids(project)), _pictures(project)
    (first.parent / "z").mkdir()
    (first.parent / "z" / "again.PNG").write_bytes(first.read_bytes())
    second.rename(first.parent / ".hidden.PNG")
    (first.parent / "notes.txt").write_text("no image")
    build(project, names=["images/pictures/pictures"])
    assert sorted(_ids(project)) == before
    names = pq.read_table(_images(project) / "names.parquet")["file_name"].to_pylist()
    assert sorted(names) == [".hidden.PNG", *(f"picture_{number}.png" for number in (0, 2, 3))]
    source = project / ".latentlens" / "warehouse" / "observed" / "images.pictures.source.json"
    assert len(read_json_object(source)) == 6


def test_a_build_that_is_killed_while_it_splits_is_finished_by_the_next(project: Path, tmp_path: Path) -> None:
    killed = (
        "import os, signal\nfrom latentlens_dag.inputs import texts\nreal = texts.write_shard\n"
        "die = lambda: os.kill(os.getpid(), signal.SIGKILL)\n"
        "def write(rows, out):\n    return die() if '03' in out.name else real(rows, out)\n"
        "texts.write_shard = write\nfrom latentlens_dag.cli.main import main\nmain()"
    )
    command = [sys.executable, "-c", killed, "build", "--select", "corpus/text/shards"]
    assert subprocess.run(command, cwd=project, capture_output=True, check=False).returncode == -9
    warehouse = project / ".latentlens" / "warehouse"
    assert len(list(warehouse.rglob(".shards.*.tmp"))) == 1
    with opened(project) as one:
        one.remove_interrupted()
        assert not list(warehouse.rglob(".*.tmp"))
    assert len(build(project, names=["corpus/text/shards"])) == 5
    assert not list(warehouse.rglob(".*.tmp"))
    build(project, tmp_path / "whole", ["corpus/text/shards"])
    for file in (tmp_path / "whole" / "warehouse" / "corpus").rglob("shard_*"):
        assert (warehouse / file.relative_to(tmp_path / "whole" / "warehouse")).read_bytes() == file.read_bytes()
