"""Pictures of a Parquet file, and of a dataset on a Hub of our own."""

import io
import json
import os
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from latentlens_dag.errors import UserError
from latentlens_dag.inputs.image_tables import (
    ImageColumn,
    check_unique_names,
    extract_images,
    extracted_batch,
    extracted_files,
    extracted_names,
    read_image_rows,
)
from latentlens_dag.inputs.images import image_table, read_image
from tests.helpers.hub_server import COMMIT, HubServer, Repo
from tests.helpers.image_files import batch_of_images, list_images


def picture(seed: int) -> bytes:
    """A PNG file of noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


PICTURES = {f"{'below/' if seed % 2 else ''}{9 - seed}.png": picture(seed) for seed in range(7)}
STRUCTS = [{"bytes": content, "path": name} for name, content in PICTURES.items()]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, content in {**PICTURES, "again/0.png": picture(0)}.items():
        (tmp_path / "folder" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "folder" / name).write_bytes(content)
    return tmp_path / "folder"


def _parquet(path: Path, **columns: object) -> Path:
    pq.write_table(pa.table(columns), path, row_group_size=3)
    return path


def _sources(tmp_path: Path) -> dict[str, ImageColumn]:
    """The same pictures, one of them twice, in three layouts and orders."""
    structs = [*STRUCTS, {"bytes": picture(0), "path": "again/0.png"}]
    names, contents = [row["path"] for row in structs], [row["bytes"] for row in structs]
    named = _parquet(tmp_path / "named.parquet", n=range(8), picture=contents, called=names)
    back = _parquet(tmp_path / "back.parquet", image=structs[::-1])
    large = _parquet(tmp_path / "large.parquet", image=pa.array(contents, pa.large_binary()), name=names)
    return {
        "names": ImageColumn(named, "picture", "called"),
        "paths, backwards": ImageColumn(back, "image"),
        "large": ImageColumn(large, "image", "name"),
    }


@pytest.mark.parametrize("layout", ["names", "paths, backwards", "large"])
def test_pictures_of_a_table_are_those_of_a_folder_with_the_same_files(
    folder: Path, tmp_path: Path, layout: str
) -> None:
    out = tmp_path / "originals"
    extract_images(_sources(tmp_path)[layout], out)
    for batch in range(3):
        there = image_table(extracted_batch(out, batch, 3), out)
        assert there.equals(image_table(batch_of_images(folder, batch, 3), folder))
        assert [file.path.read_bytes() for file in extracted_files(there, out)] == [
            file.path.read_bytes() for file in batch_of_images(folder, batch, 3)
        ]
    assert len(list(out.iterdir())) == len(list_images(folder)) + 1


def test_a_picture_without_a_name_has_the_number_of_its_first_row(tmp_path: Path) -> None:
    contents = [picture(3), picture(1), picture(3), picture(2)]
    bare = ImageColumn(_parquet(tmp_path / "bare.parquet", image=contents), "image")
    names = pq.read_table(extract_images(bare, tmp_path / "bare")).to_pylist()
    assert sorted(row["file_name"] for row in names) == ["1", "2", "4"]
    assert [row["image_id"] for row in names] == sorted(row["image_id"] for row in names)
    structs = [{"bytes": content, "path": "x.png" if number == 2 else None} for number, content in enumerate(contents)]
    some = ImageColumn(_parquet(tmp_path / "some.parquet", image=structs), "image")
    names = pq.read_table(extract_images(some, tmp_path / "some")).to_pylist()
    assert sorted(row["file_name"] for row in names) == ["2", "4", "x.png"]


def test_no_name_of_a_table_becomes_a_path(tmp_path: Path) -> None:
    names = ["../outside.png", "/tmp/outside.png", "a/../../b.png"]
    columns = {"image": [picture(seed) for seed in range(3)], "name": names}
    extract_images(ImageColumn(_parquet(tmp_path / "a.parquet", **columns), "image", "name"), tmp_path / "out" / "in")
    assert {path.name for path in tmp_path.iterdir()} == {"a.parquet", "out"}
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["in"]


MISTAKES = {
    "no such column": ({"picture": [b"a"]}, r"a\.parquet has no column 'image'; it has picture\. Correct `column`"),
    "no such names": ({"image": [b"a"]}, r"has no column 'name'; it has image\. Correct `name`"),
    "null": ({"image": [b"a", None], "name": ["a", "b"]}, r"a\.parquet, row 2: image holds no bytes .*\(null\)"),
    "no bytes": ({"image": [b""], "name": ["a"]}, r"row 1: image holds no bytes"),
    "text": ({"image": ["a"], "name": ["a"]}, r"row 1: image holds no bytes of an image \(str\)"),
    "only paths": ({"image": [{"bytes": None, "path": "x.png"}], "name": ["a"]}, r"row 1: .*\(only the path x\.png\)"),
    "another struct": ({"image": [{"a": 1}], "name": ["a"]}, r"row 1: image holds no bytes"),
    "empty": ({"image": pa.array([], pa.binary()), "name": pa.array([], pa.string())}, r"holds no image: .*no rows"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_table_without_pictures_is_told_and_leaves_what_was_there(tmp_path: Path, mistake: str) -> None:
    columns, message = MISTAKES[mistake]
    out = tmp_path / "originals"
    good = ImageColumn(_parquet(tmp_path / "good.parquet", image=STRUCTS), "image")
    before = extract_images(good, out).read_bytes()
    with pytest.raises(UserError, match=message):
        extract_images(ImageColumn(_parquet(tmp_path / "a.parquet", **columns), "image", "name"), out)
    assert (out / "names.parquet").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 3


def test_a_file_that_is_no_parquet_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1 no")
    for name in ("a.parquet", "absent.parquet"):
        with pytest.raises(UserError, match=rf"{name} cannot be read as Parquet"):
            list(read_image_rows(ImageColumn(tmp_path / name, "image")))


def test_an_unreadable_picture_is_called_by_its_name(tmp_path: Path) -> None:
    structs = [*STRUCTS, {"bytes": b"nothing", "path": "broken.png"}]
    extract_images(ImageColumn(_parquet(tmp_path / "a.parquet", image=structs), "image"), tmp_path / "out")
    with pytest.raises(UserError, match=r"Image broken\.png of the source: .*cannot be read as an image"):
        image_table(extracted_batch(tmp_path / "out", 0, 1), tmp_path / "out")


def test_a_picture_that_changed_since_it_was_listed_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "out"
    extract_images(ImageColumn(_parquet(tmp_path / "a.parquet", image=STRUCTS), "image"), out)
    files = extracted_batch(out, 0, 1)
    table = image_table(files, out)
    files[0].path.write_bytes(picture(99))
    with pytest.raises(UserError, match="changed or removed"):
        for file in extracted_files(table, out):
            read_image(file)


def test_two_pictures_of_one_name_are_refused_where_names_matter(tmp_path: Path) -> None:
    structs = [{"bytes": picture(seed), "path": f"{seed // 2}.png"} for seed in range(3)]
    source = ImageColumn(_parquet(tmp_path / "a.parquet", image=structs), "image")
    extract_images(source, tmp_path / "out")
    with pytest.raises(UserError, match=r"a\.parquet calls 2 of them 0\.png\. Give every image"):
        check_unique_names(extracted_names(tmp_path / "out"), source)
    extract_images(ImageColumn(_parquet(tmp_path / "b.parquet", image=STRUCTS), "image"), tmp_path / "out")
    check_unique_names(extracted_names(tmp_path / "out"), source)


CLIENT = """
import json, time
from pathlib import Path
time.sleep = lambda seconds: None  # between retries
from latentlens_dag.errors import UserError
from latentlens_dag.hub.datasets import HubColumn
from latentlens_dag.inputs.image_tables import extract_images

def outcome(number, column):
    try:
        return str(extract_images(HubColumn(**column), Path(f"out_{number}").absolute()))
    except UserError as error:
        return str(error)

print(json.dumps([outcome(number, column) for number, column in enumerate(json.loads(sys.argv[1]))]), flush=True)
os._exit(0)  # Arrow's threads, where the interpreter ends as they do, now and then abort it (apache/arrow#34314)
"""


def _of_datasets(path: Path, other: list[bytes]) -> bytes:
    """A file as the library `datasets` writes it, with its own notes on the columns, and a column beside."""
    from datasets import Dataset, Features, Value
    from datasets import Image as ImageFeature

    columns = {"id": list(range(len(STRUCTS))), "image": STRUCTS, "other": other}
    features = Features({"id": Value("int64"), "image": ImageFeature(), "other": Value("binary")})
    Dataset.from_dict(columns, features=features).to_parquet(str(path))
    return path.read_bytes()


def test_pictures_of_the_hub_are_those_of_a_folder_with_the_same_files(folder: Path, tmp_path: Path) -> None:
    hub, home = HubServer(), tmp_path / "home"
    wide = _of_datasets(tmp_path / "a.parquet", [os.urandom(200_000) for _ in STRUCTS])
    hub.add(Repo("user/pictures", {"data/train-00000-of-00001.parquet": wide}))
    bare = _parquet(tmp_path / "b.parquet", image=list(PICTURES.values())).read_bytes()
    hub.add(Repo("user/bare", {"train.parquet": bare}))
    hub.add(Repo("user/folder", {"train/a.png": picture(0)}))
    whole = {"config": None, "split": "train", "column": "image", "revision": COMMIT}
    asked = [{"dataset": "user/pictures"}, {"dataset": "user/bare"}, {"dataset": "user/folder"}]
    asked += [{"dataset": "user/pictures", "column": "img"}, {"dataset": "user/pictures", "column": "id"}]
    run = hub.run(CLIENT, json.dumps([{**whole, **one} for one in asked]), home=home)
    assert run.returncode == 0, run.stderr
    told = json.loads(run.stdout)
    (folder / "again" / "0.png").unlink()
    there = image_table(extracted_batch(home / "out_0", 0, 1), home / "out_0")
    assert there.equals(image_table(list_images(folder), folder)), told[0]
    bare_table = image_table(extracted_batch(home / "out_1", 0, 1), home / "out_1")
    assert bare_table["image_id"].equals(there["image_id"])
    assert sorted(bare_table["file_name"].to_pylist()) == [str(number) for number in range(1, 8)]
    assert re.search(r"consists of imagefolder files", told[2]), told[2]
    assert re.search(r"has no column 'img'; it has id, image, other\. Correct `column`", told[3]), told[3]
    assert re.search(r"row 1: id holds no bytes of an image \(int\)", told[4]), told[4]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (pa.array([["a"]]), "the name .* is no text"),
        (pa.array([{"a": 1}]), "the name .* is no text"),
        (pa.array([b"caf\xe9"], pa.binary()).view(pa.string()), "cannot be read"),
    ],
)
def test_a_name_that_is_no_text_is_refused_with_the_file(tmp_path: Path, name: pa.Array, message: str) -> None:
    pq.write_table(pa.table({"image": pa.array([b"x"]), "name": name}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=rf"a\.parquet.*{message}"):
        list(read_image_rows(ImageColumn(tmp_path / "a.parquet", "image", "name")))


def test_a_column_of_images_that_comes_twice_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table([[b"x"], [b"y"]], names=["image", "image"]), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"a\.parquet has several columns 'image'"):
        list(read_image_rows(ImageColumn(tmp_path / "a.parquet", "image")))


@pytest.mark.parametrize("path", [None, "", 7, ["a"]])
def test_a_path_that_is_no_text_is_no_name(tmp_path: Path, path: object) -> None:
    pq.write_table(pa.table({"image": [{"bytes": b"x", "path": path}]}), tmp_path / "a.parquet")
    assert [row.name for row in read_image_rows(ImageColumn(tmp_path / "a.parquet", "image"))] == [None]
