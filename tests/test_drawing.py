import pytest
from PIL import Image

from latentlens_dag.drawing import VERDICT_COLORS, VERDICT_PLATES, fit_font, load_font, make_sheet
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
