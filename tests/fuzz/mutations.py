"""Changes of a file: at any byte and, where the file is JSON, of any value in it."""

from __future__ import annotations

import json
import zipfile
from copy import deepcopy
from io import BytesIO
from typing import Any

from hypothesis import strategies as st

_BYTES = st.one_of(
    st.binary(min_size=1, max_size=8),
    st.sampled_from(
        [b"\0" * 4, b"\xff" * 8, b"\x7f\xff\xff\xff", b"9" * 5000, b"[" * 2000, b"&a [*a]", b"{{ x }}", b"\xed\xa0\x80"]
    ),
)
_EDIT = st.tuples(st.sampled_from(["replace", "insert", "delete", "repeat", "cut"]), st.floats(0, 1), _BYTES)
_VALUES: st.SearchStrategy[Any] = st.sampled_from(
    [
        None,
        True,
        0,
        -1,
        2**31,
        2**70,
        1e308,
        "",
        "x",
        "../x",
        "\ud800",
        [],
        [1],
        ["x"],
        {},
        {"x": 1},
        [[[[]]]],
        "A" * 10_000,
    ]
)
EDITS = st.one_of(
    st.tuples(st.just("bytes"), st.lists(_EDIT, min_size=1, max_size=4)),
    st.tuples(
        st.just("json"), st.lists(st.tuples(st.integers(0, 10_000), _VALUES | st.just(...)), min_size=1, max_size=3)
    ),
    st.tuples(st.just("member"), st.lists(_EDIT, min_size=1, max_size=3)),
)


def mutated(content: bytes, edits: tuple[str, list[Any]]) -> bytes:
    """A file's content with some edits; of a kind that does not fit the file, as edits of bytes where possible."""
    kind, changes = edits
    if kind == "json":
        return _with_values(content, changes)
    if kind == "member" and content[:2] == b"PK":
        return _with_member(content, changes)
    return _with_bytes(content, changes)


def _with_bytes(content: bytes, edits: list[tuple[str, float, bytes]]) -> bytes:
    for kind, place, new in edits:
        at = int(place * len(content))
        after = {
            "replace": new + content[at + len(new) :],
            "insert": new + content[at:],
            "delete": content[at + len(new) :],
            "repeat": content[at : at + 64] * (1 + new[0]) + content[at:],
            "cut": b"",
        }
        content = content[:at] + after[kind]
    return content


def _with_values(content: bytes, changes: list[tuple[int, Any]]) -> bytes:
    """Change values of a JSON file, or of the header of a file of safetensors."""
    head = int.from_bytes(content[:8], "little")
    start, end = (8, 8 + head) if head < len(content) else (0, len(content))
    try:
        tree = json.loads(content[start:end])
    except (ValueError, RecursionError):
        return content[: len(content) // 2]
    for number, value in changes:
        places = list(_places(tree))
        if places:
            parent, key = places[number % len(places)]
            if value is ...:
                del parent[key]
            else:
                parent[key] = deepcopy(value)  # inside of itself it would have no end
    text = json.dumps(tree).encode()
    return (len(text).to_bytes(8, "little") if start else b"") + text + content[end:]


def _places(tree: Any) -> list[tuple[Any, Any]]:
    found, waiting = [], [tree]
    while waiting:
        one = waiting.pop()
        keys = list(one) if isinstance(one, dict) else list(range(len(one))) if isinstance(one, list) else []
        found += [(one, key) for key in keys]
        waiting += [one[key] for key in keys]
    return found


def _with_member(content: bytes, edits: list[tuple[str, float, bytes]]) -> bytes:
    """Change the pickle in a file of `torch.save`, with a right checksum."""
    with zipfile.ZipFile(BytesIO(content)) as found:
        members = {member.filename: found.read(member) for member in found.infolist()}
    written = BytesIO()
    with zipfile.ZipFile(written, "w") as file:
        for name, member in members.items():
            file.writestr(name, _with_bytes(member, edits) if name.endswith("data.pkl") else member)
    return written.getvalue()
