"""Which tokens count, in Python and in the named queries."""

from __future__ import annotations

import re
from typing import Any

import duckdb
import polars as pl
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from latentlens_dag.dataset.named_queries import named_queries
from latentlens_dag.schema import IMAGES, VISUAL_TOKENS
from latentlens_dag.study.counted_tokens import TOKEN, blank_tokens, counts, without_blank

SIZE = (40, 20)
BLANK = re.compile(r"blank AS \(\n(.*?)\n\)", re.DOTALL)
COUNTING = {"examples", "frequent_neighbors", "frequent_words", "similarity_histogram", "words_by_layer"}

edges = st.one_of(st.sampled_from([0.0, 20.0, 40.0]), st.floats(-60, 60, width=32))
sides = st.tuples(edges, st.floats(1, 50, width=32)).map(lambda pair: (pair[0], pair[0] + pair[1]))
places = st.one_of(
    st.tuples(st.sampled_from(["global", "tile", "padding"]), sides, sides),
    st.tuples(st.sampled_from(["newline", "separator", "unmapped", "text"]), st.none(), st.none()),
)


def _tables(tokens: list[tuple[str, Any, Any]]) -> tuple[pa.Table, pa.Table]:
    """Tokens (view, left and right, top and bottom) of two images, in turn; of the size of one nothing is known."""
    rows = []
    for number, (view, across, down) in enumerate(tokens):
        (x0, x1), (y0, y1) = across or (None, None), down or (None, None)
        row = {"study": "s", "image_id": "sized" if number % 3 else "unknown", "token_index": number, "view": view}
        rows.append(dict.fromkeys(VISUAL_TOKENS.names) | row | {"x0": x0, "y0": y0, "x1": x1, "y1": y1})
    image = dict.fromkeys(IMAGES.names) | {"image_id": "sized", "width": SIZE[0], "height": SIZE[1]}
    return pa.Table.from_pylist(rows, VISUAL_TOKENS), pa.Table.from_pylist([image], IMAGES)


def _shows_nothing(row: dict[str, Any]) -> bool:
    """The definition: it has no pixel, or none within the image, up to the rounding of boxes."""
    if row["x0"] is None:
        return row["view"] in ("newline", "separator")
    width, height = SIZE if row["image_id"] == "sized" else (float("inf"), float("inf"))
    across = min(row["x1"], width) - max(row["x0"], 0.0)
    down = min(row["y1"], height) - max(row["y0"], 0.0)
    return row["view"] == "padding" or across <= 1e-3 or down <= 1e-3


def _is_clear(token: tuple[str, Any, Any]) -> bool:
    """No end of the box is so near to a border that rounding decides, but for one on the border."""
    ends = [end for side in token[1:] if side for end in side]
    return all(end == border or abs(end - border) > 0.01 for end in ends for border in (0, *SIZE))


@settings(deadline=None, max_examples=50)
@given(st.lists(places.filter(_is_clear), max_size=12))
def test_a_token_counts_if_some_of_its_box_is_in_the_image_or_nobody_knows_where_it_is(
    tokens: list[tuple[str, Any, Any]],
) -> None:
    table, images = _tables(tokens)
    expected = [row["token_index"] for row in table.to_pylist() if _known_as_blank(row)]
    blank = blank_tokens([table], [images])
    assert blank["token_index"].to_list() == expected
    assert counts(table, blank).tolist() == [row not in expected for row in range(len(tokens))]
    (kept,) = without_blank([table], blank)
    assert kept["token_index"].to_pylist() == [row for row in range(len(tokens)) if row not in expected]


def _known_as_blank(row: dict[str, Any]) -> bool:
    """Of an image of unknown size, only the view tells."""
    unsized = row["image_id"] == "unknown"
    return row["view"] in ("padding", "newline", "separator") if unsized else _shows_nothing(row)


@settings(deadline=None, max_examples=50)
@given(st.lists(places.filter(_is_clear), max_size=12))
def test_the_named_queries_leave_out_the_same_tokens(tokens: list[tuple[str, Any, Any]]) -> None:
    rules = {name: BLANK.search(query.sql) for name, query in named_queries().items()}
    assert {name for name, rule in rules.items() if rule} == COUNTING
    (rule,) = {rule.group(1) for rule in rules.values() if rule}
    visual_tokens, images = _tables([(view, *box) for view, *box in tokens])
    known = visual_tokens.filter(
        pa.array([row["image_id"] == "sized" for row in visual_tokens.to_pylist()], pa.bool_())
    )
    with duckdb.connect() as connection:
        connection.register("visual_tokens", known)
        connection.register("images", images)
        found = connection.sql(f"SELECT image_id, token_index FROM ({rule}) ORDER BY ALL").pl()
    expected = blank_tokens([known], [images]).sort(TOKEN)
    assert found.rows() == expected.rows()


def test_where_every_token_counts_tables_stay_the_same_objects() -> None:
    table, images = _tables([("global", (0, 20), (0, 20)), ("unmapped", None, None)])
    blank = blank_tokens([table], [images])
    tables = [table]
    assert blank.is_empty() and blank.schema == {"image_id": pl.String, "token_index": pl.Int32}
    assert without_blank(tables, blank) is tables
    assert blank_tokens([], []).is_empty()
