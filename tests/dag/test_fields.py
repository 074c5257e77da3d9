"""A step's definition changes with the fields of the YAML that it reads, and with nothing else (see `fields.py`).

In seconds: which assets' definitions a change of a field changes, of every field of every component. In the long runs,
the other direction: a project that is built, changed and built again has the tables of one that was never another.
Equal are bytes of Parquet and rows of Lance; floats may differ by 1e-5 where states came from other batches.
"""

import csv
import json
import shutil
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from inspect import isclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import dagster as dg
import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from latentlens_dag.dag.components import base, release, sources, studies, trained_model, training
from latentlens_dag.dag.loading import load_definitions
from latentlens_dag.dag.versions import source_version
from latentlens_dag.index.lance_files import open_table
from latentlens_dag.storage.home import Home
from latentlens_dag.testing import SENTENCES
from tests.dag.conftest import build
from tests.dag.fields import BASES, CHANGES, Change

Components = dict[str, dict[str, Any]]
Copy = Callable[[Path], Path]
MEANT = [*SENTENCES[4:], "A small bird sings in the old tree.", "The red apple lies on the table."]


class Definition(NamedTuple):
    """What is declared of an asset that decides whether it is stale."""

    code_version: str | None
    made_from: frozenset[str]
    partitions: tuple[str, ...]
    source_version: str | None


@pytest.fixture(scope="module")
def material(fresh_project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a defs.yaml with all files that `fields.py` names; the defs.yaml itself is not there."""
    here = tmp_path_factory.mktemp("material")
    shutil.copytree(fresh_project / "assets" / "tiny", here, dirs_exist_ok=True)
    (here / "defs.yaml").unlink()
    _write_texts(here)
    _write_pictures(here)
    shutil.copytree(here, here / "copied", ignore=shutil.ignore_patterns("copied"))
    for model in ("copy", "noted"):
        shutil.copytree(here / "model", here / model)
    (here / "noted" / "notes.txt").write_text("another content of the model's folder")
    return here


def _write_texts(here: Path) -> None:
    rows = [{"said": said, "meant": meant} for said, meant in zip(SENTENCES, [*MEANT, *MEANT], strict=False)]
    for name, some in (("texts.csv", rows), ("others.csv", rows[:5])):
        with (here / name).open("w", newline="") as file:
            writer = csv.DictWriter(file, ["said", "meant"])
            writer.writeheader()
            writer.writerows(some)
    (here / "texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pq.write_table(pa.Table.from_pylist(rows), here / "texts.parquet")
    (here / "fewer.txt").write_text("\n".join(MEANT))


def _write_pictures(here: Path) -> None:
    files = sorted((here / "pictures").iterdir())
    (here / "named").mkdir()
    for file in files:
        shutil.copy(file, here / "named" / file.name.replace("_3", "_of_a_dog"))
    content = [file.read_bytes() for file in files]
    rows = [
        {"front": one, "back": other, "title": f"{number}.png", "subtitle": f"0{number}.png"}
        for number, (one, other) in enumerate(pairwise(content))
    ]
    pq.write_table(pa.Table.from_pylist(rows), here / "frames.parquet")
    pq.write_table(pa.Table.from_pylist(rows[:2]), here / "fewer.parquet")
    captions = [{"file_name": file.name, "caption": f"Picture {file.stem}.", "other": file.stem} for file in files]
    (here / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in captions))
    pq.write_table(pa.Table.from_pylist(captions), here / "captions.parquet")
    regions = pq.read_table(here / "regions.parquet")  # other names, of which no judge knows
    names = pa.array([name.upper() for name in regions["name"].to_pylist()])
    pq.write_table(regions.set_column(regions.schema.get_field_index("name"), "name", names), here / "other.parquet")


def _edited(base: Components, edits: Mapping[str, Any]) -> Components:
    found = json.loads(json.dumps(base))  # no part of it twice, which YAML would write as an alias
    for path, value in edits.items():
        owner, *fields = path.split(".")
        if not fields:
            found = {value if name == owner else name: attributes for name, attributes in found.items()}
            continue
        place = found[owner]
        for name in fields[:-1]:
            place = place[name]
        if value is None:
            del place[fields[-1]]
        else:
            place[fields[-1]] = value
    return found


def _write(project: Path, declared: Components) -> None:
    """Write the defs.yaml of a project; `HERE/` begins an absolute path."""
    here = project / "assets" / "tiny"
    documents = []
    for owner, attributes in declared.items():
        kind, name = owner.split()
        documents.append({"type": f"latentlens_dag.dag.components.{kind}", "attributes": {"name": name, **attributes}})
    (here / "defs.yaml").write_text(yaml.safe_dump_all(documents).replace("HERE/", f"{here}/"))


def _project(folder: Path, material: Path, declared: Components) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "workspace.yaml").write_text("load_from: []\n")
    shutil.copytree(material, folder / "assets" / "tiny")
    _write(folder, declared)
    return folder


def _definitions(project: Path, memory: Path) -> dict[str, Definition]:
    graph = load_definitions(project, Home(memory / "home")).resolve_asset_graph()
    found = {}
    for key in graph.get_all_asset_keys():
        node = graph.get(key)
        partitions = node.partitions_def.get_partition_keys() if node.partitions_def else ()
        source = source_version(node.metadata, memory / f"{'.'.join(key.path)}.json")
        parents = frozenset(parent.to_user_string() for parent in node.parent_keys)
        found[key.to_user_string()] = Definition(node.code_version, parents, tuple(partitions), source)
    return found


@pytest.fixture(scope="module")
def defined(material: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Components], dict[str, Definition]]:
    """The definitions of some components; those of the same components are loaded once."""
    project = _project(tmp_path_factory.mktemp("declared"), material, {})
    memory = tmp_path_factory.mktemp("memory")
    known: dict[str, dict[str, Definition]] = {}

    def load(declared: Components) -> dict[str, Definition]:
        _write(project, declared)
        text = (project / "assets" / "tiny" / "defs.yaml").read_text()
        if text not in known:
            known[text] = _definitions(project, memory)
        return known[text]

    return load


@pytest.fixture(autouse=True)
def _types_are_not_described(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what Dagster writes about all types of components at every load, which takes most of the time."""
    from dagster.components.core import load_defs

    monkeypatch.setattr(load_defs, "get_library_json_enriched_defs", lambda tree: dg.Definitions(component_tree=tree))


def _all_fields() -> set[str]:
    """Every field that a defs.yaml may have, by the class that declares its type."""
    found = [one for module in (studies, training, release, sources) for one in vars(module).values() if isclass(one)]
    models = {one for one in found if issubclass(one, dg.Model) and one.__module__.startswith("latentlens_dag")}
    return {
        f"{one.__name__}.{name}"
        for one in models - {base.NamedComponent, sources.HubFields, trained_model.TrainedModel}
        for name in one.model_fields
    }


ALL = [
    pytest.param(change, id=f"{name}-{number}")
    for name, found in CHANGES.items()
    for number, change in enumerate(found)
]
BUILDABLE = [param for param in ALL if param.values[0].base not in ("online", "connected")]


def test_every_field_of_every_component_is_changed_here() -> None:
    assert set(CHANGES) == _all_fields()
    for name, found in CHANGES.items():
        for change in found:
            edited = {
                path.split(".")[0].split()[0] + "." + field for path in change.edits for field in _names(path, change)
            }
            kind, _, field = name.partition(".")
            assert name in edited or (
                field in {one.split(".")[1] for one in edited} and kind.endswith(("Source", "Judge", "Parts"))
            )


def _names(path: str, change: Change) -> list[str]:
    """The names of the fields that an edit touches."""
    value = change.edits[path]
    inner = list(value) if isinstance(value, dict) else []
    return [*path.split(".")[1:], *inner] if "." in path else ["name"]


@pytest.mark.parametrize("change", ALL)
def test_a_field_changes_the_definitions_of_what_reads_it_and_no_others(
    defined: Callable[[Components], dict[str, Definition]], change: Change
) -> None:
    start = _edited(BASES[change.base], change.before)
    before, after = defined(start), defined(_edited(start, change.edits))
    names = before.keys() | after.keys()
    changed = {name for name in names if before.get(name) != after.get(name)}
    assert changed == {name for name in names if any(fnmatchcase(name, pattern) for pattern in change.changed)}
    assert [pattern for pattern in change.changed if not any(fnmatchcase(name, pattern) for name in names)] == []


def test_the_order_of_keys_comments_and_the_projects_folder_change_no_definition(
    defined: Callable[[Components], dict[str, Definition]], material: Path, tmp_path: Path
) -> None:
    base = BASES["images"]
    reordered = {owner: dict(reversed(fields.items())) for owner, fields in reversed(base.items())}
    elsewhere = _project(tmp_path / "elsewhere", material, reordered)
    file = elsewhere / "assets" / "tiny" / "defs.yaml"
    file.write_text("# a comment\n" + file.read_text().replace("\n---\n", "\n---  # another\n"))
    assert "another" in file.read_text()
    assert _definitions(elsewhere, tmp_path) == defined(base)


@pytest.fixture(scope="module")
def built(material: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Components], Path]:
    """A project that was built from some components; built once, not to be written to."""
    known: dict[str, Path] = {}

    def project(declared: Components) -> Path:
        name = json.dumps(declared)
        if name not in known:
            known[name] = _project(tmp_path_factory.mktemp("built") / "project", material, declared)
            build(known[name])
        return known[name]

    return project


@pytest.mark.soak
@pytest.mark.parametrize("change", BUILDABLE)
def test_a_changed_project_has_the_tables_of_one_that_was_never_another(
    built: Callable[[Components], Path], material: Path, tmp_path: Path, copy_of: Copy, change: Change
) -> None:
    start = _edited(BASES[change.base], change.before)
    changed = copy_of(built(start))
    _write(changed, _edited(start, change.edits))
    build(changed)
    new = _project(tmp_path / "new", material, _edited(start, change.edits))
    build(new)
    _check_equal(*(project / ".latentlens" / "warehouse" for project in (changed, new)))


def _check_equal(changed: Path, new: Path) -> None:
    """What lies in a new warehouse lies in the changed one; that may have files of what is no longer there, too."""
    for name in sorted(path.relative_to(new) for path in new.rglob("*.parquet")):
        if "earlier" not in name.parts and (changed / name).read_bytes() != (new / name).read_bytes():
            _check_rows(name, pl.read_parquet(changed / name), pl.read_parquet(new / name))
    for name in sorted(path.relative_to(new) for path in new.rglob("*.lance") if path.is_dir()):
        _check_rows(name, *(_lance(warehouse / name) for warehouse in (changed, new)))
    for name in sorted(path.relative_to(new) for path in new.rglob("*.duckdb")):
        one, other = _catalog(changed / name), _catalog(new / name)
        assert one.keys() == other.keys()
        for table in one:
            _check_rows(name / table, one[table], other[table])
    for name in sorted(path.relative_to(new) for path in new.rglob("shape.json")):
        assert _shape(changed / name) == _shape(new / name), name


def _shape(file: Path) -> dict[str, object]:
    """Without the place of the study's model, which is that of the last build: a model that moves is the same."""
    return {field: value for field, value in json.loads(file.read_text()).items() if not field.startswith("model")}


def _lance(table: Path) -> pl.DataFrame:
    return pl.DataFrame(open_table(table).to_table())


def _catalog(file: Path) -> dict[str, pl.DataFrame]:
    with duckdb.connect(str(file), read_only=True) as connection:
        names = [row[0] for row in connection.sql("SELECT table_name FROM duckdb_tables()").fetchall()]
        return {name: pl.DataFrame(connection.sql(f'FROM "{name}"').to_arrow_table()) for name in names}


def _check_rows(name: Path, one: pl.DataFrame, other: pl.DataFrame) -> None:
    """Equal rows in the same order; floats within 1e-5, for a batch of other images or sentences rounds otherwise.

    Where that lies between two numbers of a column of 16 bits, it is stored as one or the other.
    """
    assert one.schema == other.schema, name
    assert len(one) == len(other), name
    for column in one.columns:
        a, b = one[column], other[column]
        if _is_float(a.dtype):
            step = 2**-10 if _inner(a.dtype) == pl.Float16 else 0
            assert np.allclose(_numbers(a), _numbers(b), rtol=step, atol=1e-5, equal_nan=True), (name, column)
        else:
            assert a.equals(b), (name, column)


def _is_float(dtype: pl.DataType) -> bool:
    return _inner(dtype).is_float()


def _inner(dtype: pl.DataType) -> Any:
    return dtype.inner if isinstance(dtype, pl.Array | pl.List) else dtype


def _numbers(column: pl.Series) -> Any:
    flat = column.explode() if isinstance(column.dtype, pl.Array | pl.List) else column
    return flat.cast(pl.Float64).fill_null(np.nan).to_numpy()
