from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from latentlens_dag.dataset.dataset import open_dataset
from latentlens_dag.drawing import VERDICT_PLATES
from latentlens_dag.errors import UserError
from latentlens_dag.figures import contact_sheet
from latentlens_dag.figures.contact_sheet import LensView, draw_scenes, thumbnail_loader, write_sheet
from latentlens_dag.schema import CORPUS_ABLATION, DIVERSITY, INTERPRETABILITY, LAYER_ALIGNMENT, LENSES
from latentlens_dag.study.interpretability import MEASURES
from latentlens_dag.study.report import ablation_lines, interpretability_lines, unjudged_lines
from tests.helpers.small_dataset import ANIMALS, SIDE, image_id, write_warehouse

ROW = {
    "study": "demo", "lens": "latentlens", "visual_layer": 4, "judge": "regions", "patch_group": "object", "k": 5,
    "measure": "interpretable", "tokens": 1234, "images": 64, "effective_tokens": 345.6, "share": 0.942, "low": 0.93,
    "high": 0.95, "chance": 0.081, "chance_low": 0.07, "chance_high": 0.09, "excess": 0.937, "excess_low": 0.91,
    "excess_high": 0.96,
}  # fmt: skip
CONCRETE = ROW | {"measure": "concrete", "share": 0.912, "low": 0.89, "high": 0.93, "chance": 0.043}
GREEN = Image.new("RGB", (SIDE, SIDE), (20, 160, 20))
QUARTERS = np.array([[0, 0, 16, 16], [16, 0, 32, 16], [0, 16, 16, 32], [16, 16, 32, 32]], np.float32)


def lines(*rows: dict[str, object], **options: Any) -> list[str]:
    table = pa.Table.from_pylist(list(rows), schema=INTERPRETABILITY)
    return interpretability_lines(table, **options).splitlines()


def told(text: list[str]) -> list[list[str]]:
    return [line.split() for line in text if line.startswith("latentlens")]


def test_a_line_has_share_interval_and_chance_of_the_papers_measure_and_then_of_concrete() -> None:
    text = lines(ROW, CONCRETE)
    shares = [["latentlens", "4", "94.2", "93.0-95.0", "8.1"], ["latentlens", "4", "91.2", "89.0-93.0", "4.3"]]
    assert told(text) == shares
    headings = [line for line in text if "judge regions, by 5 answers: % of tokens" in line]
    assert ["interpretable (" in line for line in headings] == [True, False]
    assert any("object, n=1,234" in line for line in text)


def test_all_measures_among_all_patches_stand_side_by_side_for_the_nearest_answer_and_for_all() -> None:
    shares = {(k, measure): (k + place) / 100 for k in (1, 5) for place, measure in enumerate(MEASURES)}
    rows = [ROW | {"patch_group": "all", "k": k, "measure": m, "share": share} for (k, m), share in shares.items()]
    text = lines(*rows)
    assert told(text)[-1] == ["latentlens", "4", *["1.0", "2.0", "3.0", "4.0", "5.0", "6.0", "7.0", "8.0"]]
    assert any("by the nearest answer" in line and "by 5 answers" in line for line in text)


def test_one_measure_has_all_its_figures_for_every_group() -> None:
    groups = [ROW | {"patch_group": group, "k": k} for group in ("object", "padding") for k in (1, 5)]
    text = lines(*groups, CONCRETE, measure="interpretable")
    figures = ["94.2", "93.0-95.0", "8.1", "7.0-9.0", "93.7", "91.0-96.0", "1,234", "64", "346"]
    assert told(text) == [["latentlens", "4", *figures]] * 2
    patches = [re.findall("by 5 answers, patches (.*): %", line) for line in text if "judge regions" in line]
    assert patches == [["object"], ["padding"]]
    assert all("by the nearest answer" in line for line in lines(*groups, k=1) if "judge regions" in line)


@pytest.mark.parametrize("longest", ["embeddinglens", "embeddinglens_shared"])
@pytest.mark.parametrize("options", [{}, {"measure": "concrete"}])
def test_the_widest_table_fits_100_columns_and_numbers_stand_in_columns(options: dict[str, str], longest: str) -> None:
    ends = {name: 1.0 if "high" in name else 0.999 for name in ROW if "low" in name or "high" in name}
    full = ends | {"share": 1.0, "chance": 1.0, "excess": 1.0, "tokens": 99_999_999, "effective_tokens": 9e6}
    rows = [
        {**ROW, **full, "lens": lens, "visual_layer": layer, "patch_group": group, "measure": measure, "k": k}
        for lens in ("latentlens", longest)
        for layer in (0, 63)
        for group in ("all", "object", "background")
        for measure in MEASURES
        for k in (1, 5)
    ]
    text = lines(*rows, **options)
    assert max(map(len, text)) <= 100
    assert len({len(line) for line in text if "99.9-100" in line}) == 1


def test_an_excess_is_explained_where_it_stands_and_may_be_negative() -> None:
    negative = ROW | {"excess": -0.123, "excess_low": -0.204, "excess_high": -0.051}
    text = lines(negative, measure="interpretable")
    assert told(text)[0][6:8] == ["-12.3", "-20.4--5.1"]
    assert [line for line in text if line.startswith("excess: (share - chance) / (1 - chance)")] == text[-1:]
    assert not any("excess" in line for line in lines(ROW, CONCRETE))


@pytest.mark.parametrize("null", [0.1132, None])
def test_the_null_stands_beside_each_share_of_the_layer_alignment(null: float | None) -> None:
    row = {"study": "s", "visual_layer": 4, "contextual_layer": 2, "neighbors": 9, "share": 0.2634, "null_share": null}
    alignment = pa.Table.from_pylist([row, row | {"contextual_layer": 8, "share": 1.0}], schema=LAYER_ALIGNMENT)
    text = unjudged_lines(DIVERSITY.empty_table(), alignment).splitlines()
    (place,) = [at for at, line in enumerate(text) if line.startswith("% of LatentLens's answers")]
    assert ("of a null's" in text[place]) == (null is not None)
    head = place + (2 if null is None else 3)
    assert text[head].split() == ["layer", "L2", "L8"]
    beside = "" if null is None else "/11.3"
    assert text[head + 1].split() == ["4", f"26.3{beside}", f"100.0{beside}"]
    assert max(map(len, text)) <= 100


def test_missing_interval_chance_or_group_leaves_its_place_open() -> None:
    missing = {**ROW, "low": None, "high": None, "chance": None}
    assert told(lines(missing))[0] == ["latentlens", "4", "94.2", "-"]
    unknown = missing | {"k": None, "images": None, "effective_tokens": None, "excess": None}
    unknown |= {"chance_low": None, "chance_high": None, "excess_low": None, "excess_high": None}
    whole = told(lines(unknown, measure="interpretable"))
    assert whole == [["latentlens", "4", "94.2", "-", "-", "1,234", "-", "-"]]
    assert "No judgements yet" in lines()[0]


def _words(lens: str, layer: int, words: float, low: float | None, high: float | None) -> dict[str, Any]:
    row = {"study": "demo", "lens": lens, "visual_layer": layer, "tokens": 9, "images": 3, "distinct_words": words}
    return row | {"low": low, "high": high}


def test_the_distinct_words_of_every_lens_stand_below_with_their_intervals_in_100_columns() -> None:
    rows = [_words(lens, layer, 2.414, 2.351, 2.472) for lens in reversed(LENSES) for layer in (0, 63)]
    diversity = pa.Table.from_pylist([*rows, _words("latentlens", 7, 4.0, None, None)], schema=DIVERSITY)
    text = lines(ROW, diversity=diversity)
    start = next(at for at, line in enumerate(text) if line.startswith("different words among a token's answers"))
    assert text[start + 2].split() == ["layer", *LENSES]
    assert text[start + 3].split() == ["0", *["2.41", "[2.35-2.47]"] * 5]
    assert text[start + 4].split() == ["7", "4.00", *["-"] * 4]  # one image says nothing about others
    assert max(map(len, text)) <= 100
    assert not any("different words" in line for line in lines(ROW, measure="concrete", diversity=diversity))


def test_a_part_of_the_index_has_a_line_with_the_mean_of_its_visual_layers_and_their_range() -> None:
    sizes = {0.01: 73, 1.0: 4491}
    rows = [
        ROW | {"patch_group": "all", "visual_layer": layer, "fraction": part, "occurrences": size, "k": k, "measure": m}
        | {"sentences": 1, "token_ids": 1, "share": part / 2 + layer / 100 + k / 1000, "chance": layer / 50}
        for part, size in sizes.items()
        for layer in (0, 4)
        for k in (1, 5)
        for m in ("interpretable", "concrete")
    ]  # fmt: skip
    rows.append(rows[0] | {"patch_group": "object", "share": 0.99})

    def printed(**options: Any) -> list[str]:
        table = pa.Table.from_pylist(rows, schema=CORPUS_ABLATION)
        return [line for line in ablation_lines(table, **options).splitlines() if line]

    assert "demo, judge regions, by 5 answers: % of tokens interpretable (" in printed()[0]
    assert [line.split() for line in printed()[-2:]] == [
        ["1", "%", "73", "3.0", "1.0-5.0", "4.0"],
        ["100", "%", "4,491", "52.5", "50.5-54.5", "4.0"],
    ]
    assert "by the nearest answer: % of tokens with a concrete word" in printed(measure="concrete", k=1)[0]
    assert printed(k=1)[-1].split()[3:] == ["52.1", "50.1-54.1", "4.0"]
    assert max(map(len, printed())) <= 100
    assert ablation_lines(CORPUS_ABLATION.empty_table()) == ""


def labelled(tmp_path: Path, view: LensView, boxes: np.ndarray = QUARTERS) -> Image.Image:
    draw_scenes([GREEN], [boxes], {"latentlens": [view]}, title="t").save(tmp_path / "a.png")
    return Image.open(tmp_path / "a.png").convert("RGB")


def close(pixel: object, color: tuple[int, int, int]) -> bool:
    return bool(np.abs(np.subtract(pixel, color)).max() < 40)


def test_each_patch_wears_the_color_of_its_verdict_and_a_word_less_one_stays_bare(tmp_path: Path) -> None:
    picture = labelled(tmp_path, LensView(["dog", "the", None, "sky"], ["concrete", "none", "none", "global"]))
    left, top = 28, picture.height - 28 - 128
    for number, color in enumerate(
        (VERDICT_PLATES["concrete"], VERDICT_PLATES["none"], (20, 160, 20), VERDICT_PLATES["global"])
    ):
        row, column = divmod(number, 2)
        # Left in the shade, beside the word, at the patch's middle height.
        assert close(picture.getpixel((left + 64 * column + 5, top + 64 * row + 32)), color)


def test_boxes_may_be_any_list_and_words_of_any_length_or_script(tmp_path: Path) -> None:
    odd = np.array([[-4, -4, 12.5, 9], [10, 3, 31, 29.5], [30, 30, 40, 40]], np.float32)
    words = ["interpretability" * 5, "\N{SNOWMAN} 日本 <b>", ","]
    assert labelled(tmp_path, LensView(words, [None, "global", "abstract"]), odd).width > 100
    assert labelled(tmp_path, LensView([], []), np.zeros((0, 4), np.float32)).width >= SIDE


def test_lenses_stand_side_by_side_and_scenes_below_each_other(tmp_path: Path) -> None:
    view = LensView(["a"] * 4, ["none"] * 4)
    sizes = {}
    for lenses, scenes in ((1, 1), (3, 1), (3, 2)):
        path = tmp_path / f"{lenses}{scenes}.png"
        views = {f"lens {number}": [view] * scenes for number in range(lenses)}
        draw_scenes([GREEN] * scenes, [QUARTERS] * scenes, views, title="t").save(path)
        sizes[lenses, scenes] = Image.open(path).size
    assert sizes[3, 1][0] - sizes[1, 1][0] == 2 * (128 + 18)
    assert sizes[3, 2][1] - sizes[3, 1][1] == 128 + 18


def test_the_same_scenes_give_the_same_bytes_and_nothing_half_written(tmp_path: Path) -> None:
    view = LensView(["dog"] * 4, ["concrete"] * 4)
    labelled(tmp_path, view)
    first = (tmp_path / "a.png").read_bytes()
    labelled(tmp_path, view)
    assert (tmp_path / "a.png").read_bytes() == first and list(tmp_path.iterdir()) == [tmp_path / "a.png"]


def test_a_studys_picture_shows_its_scenes_at_the_middle_layer(tmp_path: Path) -> None:
    loaded: list[str] = []

    def load(image_id: str, file_name: str) -> Image.Image:
        loaded.append(file_name)
        return GREEN

    with open_dataset(write_warehouse(tmp_path / "warehouse")) as data:
        assert write_sheet(data, "one", load, tmp_path / "a.png") == 8
        assert write_sheet(data, "one", load, tmp_path / "b.png", layer=0, scenes=1) == 0
        with pytest.raises(UserError, match="no answers at visual layer 7"):
            write_sheet(data, "one", load, tmp_path / "c.png", layer=7)
        with pytest.raises(UserError, match="'none' has no answers"):
            write_sheet(data, "none", load, tmp_path / "c.png")
    typical = [f"{animal}.png" for animal in sorted(ANIMALS, key=image_id)[:2]]  # all are equally near the median
    assert loaded == [*typical, typical[0]]
    width, height = Image.open(tmp_path / "a.png").size
    assert (width, height - Image.open(tmp_path / "b.png").size[1]) == (2 * 28 + 3 * 128 + 2 * 18, 128 + 18)


@pytest.mark.parametrize("content", [b"", b"no picture", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"])
def test_a_damaged_thumbnail_is_named(content: bytes) -> None:
    class Damaged:
        def sql(self, query: str, image_id: str) -> Damaged:
            return self

        def fetchall(self) -> list[tuple[bytes, int, int]]:
            return [(content, 9, 9)]

    with pytest.raises(UserError, match=r"thumbnail of a/b\.png \(image_id 0123\) cannot be read"):
        thumbnail_loader(Damaged())("0123", "a/b.png")  # type: ignore[arg-type]


def test_a_sheet_says_of_which_scripts_it_has_no_letters(monkeypatch: pytest.MonkeyPatch) -> None:
    boxes = [np.array([[0, 0, 64, 64]], np.float32)]
    scene = [Image.new("RGB", (64, 64))]

    def drawn(word: str) -> Image.Image:
        return draw_scenes(scene, boxes, {"latentlens": [LensView([word], ["concrete"])]}, title="one")

    script = "latentlens_dag.figures.contact_sheet.missing_script"
    monkeypatch.setattr("latentlens_dag.figures.contact_sheet.drawable_text", lambda word: word.replace("X", "(Tamil)"))
    assert drawn("X").height == drawn("(Tamil)").height
    monkeypatch.setattr(script, lambda word: "Tamil" if word == "X" else None)
    named, plain = drawn("X"), drawn("(Tamil)")
    assert named.height > plain.height  # by a line
    assert named.crop((28, 78, named.width, 95)).convert("L").getextrema()[0] < 255  # between legend and columns
    below = [sheet.crop((28, sheet.height - 28 - 64, 28 + 64, sheet.height - 28)) for sheet in (named, plain)]
    assert below[0].tobytes() == below[1].tobytes()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], []),
        (["dog", "a b\n"], []),
        (["dog\ufffd", "\x07"], ["no font is missing"]),
        (["X"], ["In ( )", "Tamil"]),
        (["X", "\ufffd"], ["In ( )", "Tamil", "no font is missing"]),
    ],
)
def test_the_line_of_a_sheet_tells_a_missing_font_from_what_is_no_character(
    monkeypatch: pytest.MonkeyPatch, words: list[str], said: list[str]
) -> None:
    monkeypatch.setattr(contact_sheet, "missing_script", lambda word: "Tamil" if word == "X" else None)
    note = contact_sheet._missing_note(words)
    assert [part for part in ("In ( )", "Tamil", "no font is missing") if part in note] == said
