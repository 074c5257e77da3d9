"""The `shape.json` of every kind of set: its bytes, and which files it lists."""

import json
from pathlib import Path

import pytest

from latentlens_dag.errors import UserError
from latentlens_dag.storage.shapes import KINDS, ImageSetShape, IndexShape, StudyShape, TextSetShape, read_shape

OLD_HOME = Path(__file__).parent / "data" / "home_0_1"
STUDY = StudyShape(parts=2, visual_layers=[4, 0], lenses=["latentlens", "logitlens"])


@pytest.mark.parametrize("place", ["images/demo_scenes", "index/demo_index", "study/demo"])
def test_a_shape_of_version_0_1_is_read_and_written_with_the_same_bytes(place: str, tmp_path: Path) -> None:
    old = OLD_HOME / place / "shape.json"
    shape = read_shape(KINDS[place.partition("/")[0]], old)
    assert shape is not None
    shape.write(tmp_path / "shape.json")
    assert (tmp_path / "shape.json").read_bytes() == old.read_bytes()


STORED = {
    '{"parts": 3}': TextSetShape(parts=3),
    '{"parts": 3, "regions": false}': ImageSetShape(parts=3, regions=False),
    '{"parts": 3, "captions": true}': ImageSetShape(parts=3, captions=True),
    '{"format": 1, "parts": 1, "layers": [1, 10], "language_model": "m", "rows": {"1": 7, "10": 7}, "source": "s"}': (
        IndexShape(parts=1, layers=[10, 1], language_model="m", rows={10: 7, 1: 7}, source="s")
    ),
    '{"parts": 2, "visual_layers": [4, 0], "lenses": ["latentlens", "logitlens"], "judged": true}': STUDY,
    '{"parts": 1, "visual_layers": [0], "lenses": [], "judged": false, "of": "texts", "index": "words", '
    '"model": {"hub": "u/m", "revision": null}, "model_in_project": "../../m"}': StudyShape(
        parts=1,
        visual_layers=[0],
        lenses=[],
        judged=False,
        of="texts",
        index="words",
        model={"hub": "u/m", "revision": None},
        model_in_project="../../m",
    ),
}


@pytest.mark.parametrize("text", STORED)
def test_a_shape_is_stored_under_the_keys_of_its_kind_and_read_as_it_was(text: str, tmp_path: Path) -> None:
    STORED[text].write(tmp_path / "shape.json")
    assert json.loads((tmp_path / "shape.json").read_text()) == json.loads(text)
    assert read_shape(type(STORED[text]), tmp_path / "shape.json") == STORED[text]


LISTED = [
    ("latentlens/layer_04/batch_01.parquet", True),
    ("latentlens/layer_04/batch_02.parquet", False),
    ("latentlens/layer_08/batch_01.parquet", False),
    ("embeddinglens/layer_04/batch_01.parquet", False),
    ("judgements/layer_00/batch_00.parquet", True),
    ("patch_truth/batch_00.parquet", True),
    ("chance_patches/batch_02.parquet", False),
    ("visual_tokens/batch_00.parquet", True),
    ("text_tokens/batch_00.parquet", False),
    ("layer_alignment.parquet", True),
    ("interpretability.parquet", True),
    ("lens_differences.parquet", True),
    ("corpus_ablation.parquet", False),
]


@pytest.mark.parametrize(("file", "listed"), LISTED)
def test_a_study_lists_the_files_of_its_batches_layers_and_lenses(file: str, listed: bool) -> None:
    assert STUDY.lists(Path(file)) == listed


def test_a_study_lists_its_corpus_ablation_where_it_is_declared() -> None:
    declared = STUDY.model_copy(update={"corpus_ablation": True})
    assert declared.lists(Path("corpus_ablation.parquet"))
    assert "corpus_ablation" not in STUDY.to_json()


def test_what_a_study_no_longer_has_is_not_listed() -> None:
    unjudged = STUDY.model_copy(update={"judged": False, "lenses": ["logitlens"], "of": "texts"})
    lost = {"latentlens", "patch_truth", "chance_patches", "judgements", "layer_alignment"}
    lost |= {"interpretability", "lens_differences"}
    for file, listed in LISTED:
        table = file.partition("/")[0].removesuffix(".parquet")
        assert unjudged.lists(Path(file)) == (table not in lost and (listed or table == "text_tokens"))


def test_regions_are_listed_unless_none_are_declared() -> None:
    for shape, listed in ((ImageSetShape(parts=1), True), (ImageSetShape(parts=1, regions=False), False)):
        assert shape.lists(Path("regions_00.parquet")) == listed
        assert shape.lists(Path("batch_00.parquet")) and not shape.lists(Path("batch_01.parquet"))


def test_captions_are_listed_where_some_are_declared() -> None:
    for shape, listed in ((ImageSetShape(parts=1), False), (ImageSetShape(parts=1, captions=True), True)):
        assert shape.lists(Path("captions_00.parquet")) == listed
        assert not shape.lists(Path("captions_01.parquet"))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "Invalid JSON"),
        ("[]", "should be an object"),
        ('{"parts": "2"}', "parts: Input should be a valid integer"),
        ('{"parts": -1}', "parts: Input should be greater than or equal to 0"),
        ('{"parts": 1, "regions": true}', "regions: Input should be False"),
    ],
)
def test_a_damaged_shape_is_reported_with_its_file_and_field(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "shape.json").write_text(text)
    with pytest.raises(UserError, match=rf"shape\.json is damaged \(.*{problem}.*\)\. Run `latentlens-dag check"):
        read_shape(ImageSetShape, tmp_path / "shape.json")


def test_a_set_without_a_shape_has_none(tmp_path: Path) -> None:
    assert read_shape(ImageSetShape, tmp_path / "shape.json") is None
