"""The process that tries a pickle of strangers: `python pickle_child.py FILE`, a file of `torch.save`.

Nothing that the pickle names is imported or called; in its place stand objects that take anything. What torch would
meet, an instruction that ends the process, a list that fills the memory, a name of a megabyte, is met here first, in a
process with limited time and memory. It imports nothing of this package, and not torch: it starts in a thirtieth of a
second. The answer is one JSON object: the names that only run as code, and what else is wrong.
"""

from __future__ import annotations

import io
import json
import pickle
import resource
import sys
import zipfile
from pathlib import Path
from typing import Any

_PLAIN = {("collections", "OrderedDict"), ("_codecs", "encode"), ("builtins", "set"), ("builtins", "bytearray")}
_MOST_NAME = 200
_FREE_BYTES, _MEMORY_PER_BYTE = 256 << 20, 40
_FREE_SECONDS, _BYTES_PER_SECOND = 30, 1 << 20


class _Anything:
    """In place of everything that a pickle names."""

    def __new__(cls, *_: Any, **__: Any) -> _Anything:
        return object.__new__(cls)

    def __setstate__(self, state: object) -> None:
        pass

    def __setitem__(self, key: object, value: object) -> None:
        pass

    def append(self, value: object) -> None:
        """Forget it."""

    def extend(self, values: object) -> None:
        """Forget them."""


class _Trial(pickle.Unpickler):
    def __init__(self, content: bytes) -> None:
        super().__init__(io.BytesIO(content))
        self.refused: set[str] = set()

    def find_class(self, module: str, name: str) -> type[_Anything]:
        full = f"{module}.{name}"
        if len(full) > _MOST_NAME:
            raise ValueError("it names something of more than 200 letters")
        if not module.startswith("torch") and (module, name) not in _PLAIN:
            self.refused.add(full)
        return _Anything

    def persistent_load(self, pid: object) -> _Anything:
        return _Anything()


def _answer(file: Path) -> dict[str, Any]:
    with zipfile.ZipFile(file) as members:
        pickles = [member for member in members.infolist() if member.filename.rpartition("/")[2] == "data.pkl"]
        if len(pickles) != 1:
            return {"names": [], "wrong": f"it has {len(pickles)} members data.pkl in place of one"}
        content = members.read(pickles[0])
    _limit(len(content))
    trial, wrong = _Trial(content), None
    try:
        trial.load()
    except Exception as error:
        wrong = f"{type(error).__name__}: {error}"[:200]
    return {"names": sorted(trial.refused)[:5], "wrong": None if trial.refused else wrong}


def _limit(size: int) -> None:
    seconds = _FREE_SECONDS + size // _BYTES_PER_SECOND
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        most = _FREE_BYTES + _MEMORY_PER_BYTE * size
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_answer(Path(sys.argv[1]))))
