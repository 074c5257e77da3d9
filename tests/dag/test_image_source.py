"""Pictures of a Parquet file and of the Hub through Dagster."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from latentlens_dag.errors import UserError
from latentlens_dag.storage.hashing import hash_file
from latentlens_dag.testing import tiny_project
from tests.dag.conftest import build
from tests.helpers.changed_files import change_unseen
from tests.helpers.hub_server import COMMIT, HubServer, Repo
from tests.helpers.opened_files import opened_files

CLI = "from latentlens_dag.cli.main import main\nos.chdir(sys.argv.pop(1))\nmain()"
PARQUET = "{parquet: pictures.parquet, column: image}"
HUB = f"{{hub: user/pictures, split: train, column: image, revision: {COMMIT}}}"


def _declare(project: Path, source: str) -> None:
    file = project / "assets" / "tiny" / "defs.yaml"
    kept = file.with_suffix(".kept")
    text = kept.read_text() if kept.exists() else file.read_text()
    kept.write_text(text)
    file.write_text(text.replace("{folder: pictures}", source))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    project = tiny_project(tmp_path / "project", shards=1, batches=2)
    here = project / "assets" / "tiny"
    rows = [{"bytes": file.read_bytes(), "path": file.name} for file in (here / "pictures").iterdir()]
    pq.write_table(pa.table({"image": rows}), here / "pictures.parquet")
    return project


def _run(hub: HubServer, project: Path, *arguments: str, code: int = 0) -> str:
    run = hub.run(CLI, str(project), *arguments, home=project.parent / "hub_home")
    assert run.returncode == code, run.stdout + run.stderr
    return " ".join(run.stderr.split()) if code else run.stdout


def _results(home: Path) -> dict[str, bytes]:
    root = home / "warehouse"
    files = [*(root / "images").rglob("*_0?.parquet"), *(root / "study").rglob("*.parquet")]
    return {str(file.relative_to(root)): file.read_bytes() for file in files}


def test_a_study_of_a_table_of_pictures_is_that_of_a_folder_with_the_same_files(project: Path) -> None:
    only = ["images", "study/tiny/logitlens"]
    build(project, project / "a", only)
    _declare(project, PARQUET)
    build(project, project / "b", only)
    whole = _results(project / "a")
    assert len(whole) == 10 and "images/pictures/batch_01.parquet" in whole
    assert _results(project / "b") == whole
    assert not (project / "a" / "warehouse" / "images" / "pictures" / "originals").exists()


def test_pictures_of_the_hub_are_those_of_a_folder_and_are_read_once_and_not_before_they_are_built(
    project: Path,
) -> None:
    hub, only = HubServer(), ["--select", "images/pictures"]
    hub.add(Repo("user/pictures", {"train.parquet": (project / "assets" / "tiny" / "pictures.parquet").read_bytes()}))
    _run(hub, project, "build", *only, "--home", str(project / "a"))
    _declare(project, HUB)
    _run(hub, project, "plan", *only, "--home", str(project / "c"))
    assert not hub.requests
    _run(hub, project, "build", *only, "--home", str(project / "c"))
    assert len(_results(project / "a")) == 4
    assert _results(project / "c") == _results(project / "a")
    hub.down, asked = True, len(hub.requests)
    assert json.loads(_run(hub, project, "plan", *only, "--json", "--home", str(project / "c")))["parts"] == []
    assert len(hub.requests) == asked > 0


def test_another_picture_in_the_table_makes_its_batch_new_and_another_order_makes_nothing_new(project: Path) -> None:
    hub, file = HubServer(), project / "assets" / "tiny" / "pictures.parquet"
    _declare(project, PARQUET)
    _run(hub, project, "build", "--select", "images/pictures")
    rows = pq.read_table(file)["image"].to_pylist()
    pq.write_table(pa.table({"image": rows[::-1]}), file)
    before = _results(project / ".latentlens")
    _run(hub, project, "build", "--select", "images/pictures")
    assert _results(project / ".latentlens") == before
    pq.write_table(pa.table({"image": rows[1:]}), file)
    annotated = pq.read_table(regions := file.with_name("regions.parquet"))
    pq.write_table(annotated.filter(pc.not_equal(annotated["file_name"], rows[0]["path"])), regions)
    _run(hub, project, "build", "--select", "images/pictures")
    after = _results(project / ".latentlens")
    originals = project / ".latentlens" / "warehouse" / "images" / "pictures" / "originals"
    assert len(list(originals.iterdir())) == 3 + 1
    assert [after[name] == before[name] for name in sorted(after) if "/batch_" in name].count(False) == 1


MISTAKES = {
    "two sources": ("{folder: pictures, parquet: pictures.parquet}", "exactly one of folder, parquet, hub; it has fol"),
    "none": ("{}", "exactly one of folder, parquet, hub; it has none of them"),
    "no column": ("{parquet: pictures.parquet}", r"pictures\.parquet is a table: say its `column` of pictures"),
    "a column of a folder": ("{folder: pictures, column: image}", "`column` does not belong to `folder`"),
    "a split of a file": ("{parquet: pictures.parquet, column: a, split: b}", "`split` does not belong to `parquet`"),
    "names of the Hub": (HUB.replace("{", "{name: a, "), "`name` does not belong to `hub`"),
    "a branch": (HUB.replace(COMMIT, "main"), "`source.revision: main` of ImageSet pictures .* is no full commit"),
    "no split": (HUB.replace("split: train, ", ""), r"say `split`, `column` and .* column: image, revision"),
    "no name": (
        HUB.replace("user/pictures", "pictures"),
        "`source.hub: pictures` of ImageSet pictures .* user/dataset",
    ),
    "no file": (PARQUET.replace("pictures.p", "p.p"), r"`source.parquet` of ImageSet pictures .* does not exist"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_source_that_is_not_named_rightly_is_told_when_definitions_load(project: Path, mistake: str) -> None:
    from latentlens_dag.dag.loading import load_definitions
    from latentlens_dag.storage.home import Home

    source, message = MISTAKES[mistake]
    _declare(project, source)
    with pytest.raises(UserError, match=message):
        load_definitions(project, Home(project / "home"))


def test_a_mistake_in_the_table_ends_the_build_with_one_message(project: Path) -> None:
    _declare(project, PARQUET.replace("image", "img"))
    told = _run(HubServer(), project, "build", "--select", "images/pictures", code=2)
    assert "pictures.parquet has no column 'img'; it has image. Correct `column`" in told and "Traceback" not in told
    rows = pq.read_table(project / "assets" / "tiny" / "pictures.parquet")["image"].to_pylist()
    same = [{**row, "path": "picture_0.png"} for row in rows]
    pq.write_table(pa.table({"image": same}), project / "assets" / "tiny" / "pictures.parquet")
    _declare(project, PARQUET)
    told = _run(HubServer(), project, "build", "--select", "images/pictures", code=2)
    assert "calls 4 of them picture_0.png" in told and "Traceback" not in told


@pytest.mark.parametrize("step", ["images/pictures/pictures", "study/tiny/visual"])
def test_an_extracted_picture_that_changed_unseen_is_refused_and_extracted_again_by_the_next_build(
    project: Path, step: str
) -> None:
    _declare(project, PARQUET)
    build(project, project / "whole", [step])
    build(project, names=["images/pictures/originals" if step.endswith("pictures") else "images/pictures/pictures"])
    originals = project / ".latentlens" / "warehouse" / "images" / "pictures" / "originals"
    changed = min(file for file in originals.iterdir() if file.suffix != ".parquet")
    change_unseen(changed)
    with pytest.raises(UserError, match=rf"{changed.name} was changed or removed.*Build again"):
        build(project, names=[step])
    assert "images/pictures/originals" in build(project, names=[step])
    assert hash_file(changed) == changed.name
    assert _results(project / ".latentlens") == _results(project / "whole")
    assert build(project, names=[step]) == []


def test_a_build_of_more_batches_reads_the_record_of_the_extracted_pictures_no_more_often(project: Path) -> None:
    _declare(project, PARQUET)
    file, opens = project / "assets" / "tiny" / "defs.yaml", []
    for batches in (2, 12):
        file.write_text(file.read_text().replace("batches: 2", f"batches: {batches}"))
        home = project / f"home_{batches}"
        with opened_files() as count:
            ran = build(project, home, ["images/pictures/regions"])
        assert len([name for name in ran if name.startswith("images/pictures/regions")]) == batches
        opens.append(count[str(home / "warehouse" / "manifest" / "images" / "pictures" / "originals" / "all.json")])
    assert opens[0] == opens[1]


def test_regions_whose_file_names_are_of_no_picture_stop_the_build_before_anything_is_judged(project: Path) -> None:
    file = project / "assets" / "tiny" / "regions.parquet"
    table = pq.read_table(file)
    moved = pa.array([f"images/{name}" for name in table["file_name"].to_pylist()])  # relative to another folder
    pq.write_table(table.set_column(table.column_names.index("file_name"), "file_name", moved), file)
    with pytest.raises(UserError, match=f"does not have: {len(table)}, of {moved[0].as_py()!r}"):
        build(project, names=["images"])
    assert not [*(project / ".latentlens").rglob("regions_*.parquet")]
