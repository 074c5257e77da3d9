"""Results of SQL as CSV and JSON, whatever types they have.

Polars writes what the two formats have a form for, and is quick. Python writes the rest: bytes, lists, structs and maps
in a CSV, and bytes, maps and numbers that are not finite in JSON.
"""

from __future__ import annotations

import base64
import datetime
import decimal
import json
import math
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import polars as pl


def csv_text(frame: pl.DataFrame) -> str:
    """CSV with a header; what has values in it as JSON, bytes as their number."""
    import polars as pl
    import polars.selectors as cs

    texts = []
    for name, dtype in frame.schema.items():
        if dtype.is_nested():
            values = [None if value is None else _json(plain_value(value)) for value in frame[name].to_list()]
            texts.append(pl.Series(name, values, pl.String))
    return frame.with_columns(texts).with_columns(cs.binary().bin.size()).write_csv()


def json_text(frame: pl.DataFrame) -> str:
    """A list with an object per row: bytes as base64, numbers that JSON has not as "Infinity", "-Infinity" or "NaN"."""
    if not any(_is_beyond_json(frame[name]) for name in frame.columns):
        return frame.write_json()
    return _json([plain_value(row) for row in frame.iter_rows(named=True)])


def escape_beyond(text: str, encoding: str) -> str:
    """JSON with the escapes of JSON in place of all characters beyond ASCII, where an encoding lacks one of them."""
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return re.sub(r"[^\x00-\x7f]+", lambda found: json.dumps(found[0])[1:-1], text)
    return text


def plain_value(value: Any) -> Any:
    """A value in the types of JSON."""
    if isinstance(value, dict):
        return {_key(plain_value(key)): plain_value(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [plain_value(inner) for inner in value]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    return str(value) if isinstance(value, decimal.Decimal | datetime.timedelta) else value


def _key(value: Any) -> str:
    """A key of a map as JSON has it: true is "true"."""
    return value if isinstance(value, str) else _json(value)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _is_beyond_json(column: pl.Series) -> bool:
    """Whether Polars would write something else than the column's values."""
    dtype = column.dtype
    if dtype.is_nested():
        return _is_beyond_json_inside(dtype)
    if dtype.is_float():
        return not column.drop_nulls().is_finite().all()
    return str(dtype) == "Binary"


def _is_beyond_json_inside(dtype: pl.DataType) -> bool:
    """Whether a nested type may hold bytes, maps or floats; looking at each value is no quicker than writing it."""
    return any(name in str(dtype) for name in ("Binary", "Float", "Map", "Array"))
