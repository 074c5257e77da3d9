"""Values of Arrow columns that others made, as objects of Python.

Arrow's own conversion fails, with errors of many kinds, where Python has no such value: a zone that this machine does
not know, a day after the year 9999, a duration of millennia. What a reader of texts, bytes and numbers does not need is
therefore never converted: an `OtherValue` stands for it, which messages can name.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as kinds

_CONVERTED = (
    *(kinds.is_null, kinds.is_boolean, kinds.is_integer, kinds.is_floating),
    *(kinds.is_string, kinds.is_large_string, kinds.is_string_view),
    *(kinds.is_binary, kinds.is_large_binary, kinds.is_binary_view, kinds.is_fixed_size_binary),
)


@dataclass(frozen=True)
class OtherValue:
    """A value that is no text, bytes, number or truth value, nor a struct."""

    kind: str
    """Its type in Arrow, as `timestamp[us, tz=Europe/Berlin]`."""

    def __repr__(self) -> str:
        """Its type, for messages."""
        return f"a value of type {self.kind}"


def values_or_lists(column: pa.Array | pa.ChunkedArray) -> list[Any]:
    """As `python_values`, but of a column of lists the lists of such values."""
    if isinstance(column, pa.ChunkedArray):
        return [value for chunk in column.chunks for value in values_or_lists(chunk)]
    is_list = (kinds.is_list, kinds.is_large_list, kinds.is_fixed_size_list)
    if not any(is_kind(column.type) for is_kind in is_list):
        return python_values(column)
    lengths = pc.list_value_length(column).to_pylist()
    values = iter(python_values(column.flatten()))  # without those below a null
    return [None if length is None else list(islice(values, length)) for length in lengths]


def python_values(column: pa.Array | pa.ChunkedArray) -> list[Any]:
    """The values of a column: str, bytes, int, float, bool, None, dict of such, or OtherValue.

    Raises:
        UnicodeDecodeError: if a text is not UTF-8.
    """
    if isinstance(column, pa.ChunkedArray):
        return [value for chunk in column.chunks for value in python_values(chunk)]
    if isinstance(column, pa.ExtensionArray):
        return python_values(column.storage)
    if kinds.is_dictionary(column.type):
        return python_values(column.dictionary_decode())
    if any(is_kind(column.type) for is_kind in _CONVERTED):
        return list(column.to_pylist())
    valid = column.is_valid().to_pylist()
    if kinds.is_struct(column.type):
        names = [field.name for field in column.type]
        fields = [python_values(field) for field in column.flatten()]
        rows = zip(*fields, strict=True) if fields else ((),) * len(column)
        return [dict(zip(names, row, strict=True)) if one else None for one, row in zip(valid, rows, strict=True)]
    other = OtherValue(str(column.type))
    return [other if one else None for one in valid]
