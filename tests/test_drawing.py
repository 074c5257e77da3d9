import pytest
from PIL import Image, ImageFont, features

from latentlens_dag import drawing
from latentlens_dag.drawing import (
    VERDICT_COLORS,
    VERDICT_PLATES,
    drawable_text,
    fit_font,
    has_no_characters,
    load_font,
    make_sheet,
    missing_script,
)
from latentlens_dag.study.regions_judge import VERDICTS


@pytest.mark.parametrize("width", [0, 40, 60, 90, 1000])
def test_the_largest_font_that_fits_is_taken_or_the_smallest(width: int) -> None:
    fits = [size for size in range(9, 23) if load_font(size).getlength("elephant") <= width]
    assert fit_font("elephant", width, 22, 9).getlength("elephant") == load_font(max(fits, default=9)).getlength(
        "elephant"
    )


def test_pictures_of_a_sheet_stand_in_columns_as_wide_and_rows_as_high_as_their_largest() -> None:
    sizes = [[(10, 5), (4, 8)], [(6, 7), (20, 3)]]
    pictures = [[Image.new("RGB", size, (number, 0, 0)) for number, size in enumerate(column)] for column in sizes]
    sheet, lefts = make_sheet(pictures, margin=3, gap=2, top=30)
    assert lefts == [3, 3 + 10 + 2]
    assert sheet.size == (3 + 10 + 2 + 20 + 3, 30 + 7 + 2 + 8 + 3)
    for left, column in zip(lefts, (0, 1), strict=True):
        for top, number in ((30, 0), (30 + 7 + 2, 1)):
            width, height = sizes[column][number]
            corners = ((left, top), (left + width - 1, top + height - 1))
            assert [sheet.getpixel(corner) for corner in corners] == [(number, 0, 0)] * 2
            assert sheet.getpixel((left + width, top)) == (255, 255, 255)
    assert make_sheet(pictures, 3, 2)[0].height == sheet.height - 27


def _luminance(color: tuple[int, ...]) -> float:
    channels = [value / 255 for value in color]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_white_text_on_a_plate_of_every_verdict_has_the_contrast_that_text_needs() -> None:
    assert tuple(VERDICT_COLORS) == tuple(VERDICT_PLATES) == VERDICTS
    assert all(1.05 / (_luminance(color) + 0.05) >= 4.5 for color in VERDICT_PLATES.values())


SCRIPTS = {
    "caf\u00e9": "Latin",
    "cafe\u0301": "Latin",
    "\u05e9\u05b8\u05dc": "Hebrew",
    "\u0645\u064f\u062d": "Arabic",
    "\u0939\u093f\u0928\u094d\u0926\u0940": "Devanagari",
    "\u0ba4\u0bae\u0bbf\u0bb4\u0bcd": "Tamil",
    "\u0e44\u0e17\u0e22": "Thai",
    "\u65e5\u672c": "CJK",
    "\U0001f469\u200d\U0001f467": "emoji",
}


@pytest.fixture
def without_system_fonts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing, "_system_fonts", lambda character: ())
    monkeypatch.setattr(drawing, "_font_file", drawing._font_file.__wrapped__)


@pytest.mark.parametrize("text", ["dog", "well-known", "a, b.", "don\u2019t", " ", ""])
def test_what_pillows_own_font_has_is_drawn_with_it_on_every_machine(text: str) -> None:
    assert drawable_text(text) == text and missing_script(text) is None
    assert load_font(20, text).getname() == ImageFont.load_default(20).getname()


@pytest.mark.parametrize("text", SCRIPTS)
def test_a_text_is_drawn_without_a_sign_for_a_missing_character_or_its_script_is_named(text: str) -> None:
    font = load_font(40, drawn := drawable_text(text))
    assert drawn in (text, f"({SCRIPTS[text]})")
    if drawn == text:
        plain = ImageFont.truetype(font.path, 40, layout_engine=ImageFont.Layout.BASIC)  # a sign per character
        missing = bytes(plain.getmask("\U0010fffe"))
        assert all(bytes(plain.getmask(one)) != missing for one in text if one != "\u200d")


@pytest.mark.usefixtures("without_system_fonts")
@pytest.mark.parametrize("text", SCRIPTS)
def test_without_a_font_the_script_is_named(text: str) -> None:
    assert (missing_script(text), drawable_text(text)) == (SCRIPTS[text], f"({SCRIPTS[text]})")


@pytest.mark.parametrize("text", ["\ufffd", "a\ufffd", "\x07", "b\ue000", "\ud800", "\U0010fffe\ufffd"])
@pytest.mark.parametrize("fonts", ["of the system", "Pillow's own"])
def test_what_is_no_character_in_the_data_is_drawn_as_a_sign_and_is_not_said_to_lack_a_font(
    text: str, fonts: str, request: pytest.FixtureRequest
) -> None:
    if fonts == "Pillow's own":
        request.getfixturevalue("without_system_fonts")
    drawn = drawable_text(text)
    assert missing_script(text) is None and has_no_characters(text)
    assert [one for one in drawn if one not in "\ufffd?"] == [one for one in text if one in "ab"]
    assert len(drawn) == len(text) and (fonts == "of the system" or "\ufffd" not in drawn)
    font = load_font(40, drawn)
    assert all(drawing._has(font, one) for one in drawn)


@pytest.mark.usefixtures("without_system_fonts")
def test_beside_what_is_no_character_a_script_without_a_font_is_still_named() -> None:
    assert drawable_text("\ufffd\u0e44") == "(Thai)" and not has_no_characters("\u0e44 a\n")


def test_without_fontconfig_common_fonts_are_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert drawing._system_fonts.__wrapped__("\u05e9") == drawing._COMMON_FONTS
    assert drawing._has_all("no such font.ttf", frozenset("a")) is False


def test_without_a_library_that_shapes_text_only_letters_that_stand_alone_are_drawn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(features, "check", lambda feature: False)
    monkeypatch.setattr(drawing, "_system_fonts", lambda character: ("any.ttf",))
    monkeypatch.setattr(drawing, "_has_all", lambda file, characters: True)
    file_of = drawing._font_file.__wrapped__
    assert [file_of(frozenset(text)) for text in ("\u05e9", "e\u0301", "\u00e9", "\u65e5")] == [
        None,
        None,
        "any.ttf",
        "any.ttf",
    ]
