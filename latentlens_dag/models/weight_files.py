"""The files of a model's weights: what their headers say, and how to convert other formats.

Only safetensors are read. A folder is refused, with the remedy, if it has none, if a file is a pointer of Git LFS, cut
off or damaged, if a shard is missing, or if there are two sets of weights.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from latentlens_dag.errors import UserError

SINGLE_FILE, SHARD_INDEX = "model.safetensors", "model.safetensors.index.json"
_SHARDS = "model-*-of-*.safetensors"
_MODEL_FILES = ("*.safetensors", "*.json", "*.jinja", "*.txt", "*.model", "*.tiktoken")
_POINTER, _POINTER_BYTES = b"version https://git-lfs.github.com/spec/v1", 1024
_PICKLES = ("pytorch_model*.bin", "*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
_LISTED_NAMES = 3
_MOST_HEADER = 100_000_000  # bytes, as in safetensors itself
_DTYPES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}  # as safetensors writes them


@contextmanager
def stored_weights(folder: Path, name: str, auto_class: str) -> Iterator[dict[str, int]]:
    """The number of elements of each weight in a model's files, by the weight's name; only headers are read.

    The files stay open, and transformers loads from them inside the block: it would open each of them again, and
    safetensors opens a file twice, for its header and for torch's storage.

    Args:
        folder: the model's folder.
        name: the model's name, for messages.
        auto_class: the class of transformers that can convert other formats, for messages.

    Raises:
        UserError: if the weights are not in safetensors, or a file is missing, damaged or a pointer of Git LFS.
    """
    with ExitStack() as opened:
        files = {file: opened.enter_context(_open(file)) for file in weight_files(folder, name, auto_class)}
        counts = {key: n for path, file in files.items() for key, n in _element_counts(path, file).items()}
        with _loaded_from(files):
            yield counts


def weight_files(folder: Path, name: str, auto_class: str) -> list[Path]:
    """The files that transformers reads the weights from; arguments and errors as `stored_weights`."""
    check_lfs_pointers(folder, name)
    files = _named_files(folder, name, auto_class)
    if missing := [file.name for file in files if not file.is_file()]:
        raise UserError(
            f"{name} cannot be read: {len(missing)} of its {len(files)} weight files are missing, "
            f"{first_names(missing)}, which {SHARD_INDEX} names. Finish the download, or copy the whole folder again."
        )
    return files


def stored_dtypes(folder: Path) -> Counter[str]:
    """The number of elements of a checkpoint's weights by their dtype, such as "bfloat16"; only headers are read.

    A damaged file counts for nothing: it is refused where the weights are loaded.
    """
    counts = Counter[str]()
    for file in sorted(folder.glob("*.safetensors")):
        for weight in (_header(file) or {}).values():
            counts[_DTYPES.get(weight["dtype"], "other")] += math.prod(weight["shape"])
    return counts


def check_lfs_pointers(folder: Path, name: str) -> None:
    """Refuse a folder in which files are pointers of Git LFS, as a clone without it leaves them."""
    files = sorted({file for pattern in _MODEL_FILES for file in folder.glob(pattern) if file.is_file()})
    if pointers := [file.name for file in files if _is_pointer(file)]:
        verb = "is a pointer" if len(pointers) == 1 else "are pointers"
        raise UserError(
            f"{name} is not downloaded yet: {first_names(pointers)} {verb} of Git LFS, a few lines of text in place of "
            f"the file. Run `git lfs install` once, then `git lfs pull` in {folder}."
        )


def gguf_instructions(source: Path, auto_class: str = "AutoModelForCausalLM") -> str | None:
    """How to convert a GGUF file, or a folder that holds one, to a model folder; None if there is none."""
    folder = source.parent if source.is_file() else source
    files = [source] if source.suffix == ".gguf" and source.is_file() else sorted(source.glob("*.gguf"))
    if not files:
        return None
    arguments, save = f'"{folder}", gguf_file="{files[0].name}"', f'save_pretrained("{folder}-safetensors")'
    return (
        f"Its weights are a GGUF file ({first_names([file.name for file in files])}), which cannot be read. Convert it "
        "once, with the packages gguf and accelerate, and name the new folder:\n"
        f"  from transformers import {auto_class}, AutoTokenizer, GgufConfig\n"
        f"  whole = GgufConfig(dequantize=True)\n"
        f"  {auto_class}.from_pretrained({arguments}, quantization_config=whole).{save}\n"
        f"  AutoTokenizer.from_pretrained({arguments}).{save}"
    )


def first_names(names: Sequence[str]) -> str:
    """The first names of a list, and how many more there are."""
    more = len(names) - _LISTED_NAMES
    return ", ".join(names[:_LISTED_NAMES]) + (f" and {more:,} more" if more > 0 else "")


def _named_files(folder: Path, name: str, auto_class: str) -> list[Path]:
    """The files that transformers reads the weights from, whether or not they exist."""
    single, index = folder / SINGLE_FILE, folder / SHARD_INDEX
    if not single.is_file() and not index.is_file():
        remedy = _how_to_get_weights(folder, auto_class)
        raise UserError(f"{name} cannot be read: it has no {SINGLE_FILE} and no {SHARD_INDEX}. {remedy}")
    shards = _shards(index, name) if index.is_file() else sorted(folder.glob(_SHARDS))
    second_set = [file.name for file in shards if file != single]
    if single.is_file() and second_set:
        raise UserError(
            f"{name} has two sets of weights: {SINGLE_FILE}, and {first_names(second_set)}; only the first would be "
            "read. Move the unwanted set out of the folder"
            f"{f', with {SHARD_INDEX}' if index.is_file() else ''}."
        )
    return shards or [single]


def _shards(index: Path, name: str) -> list[Path]:
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        if outside := [name for name in names if not name or name != Path(name).name]:
            raise ValueError(f"{outside[0]!r:.80} is no name of a file beside it")
        return [index.parent / file for file in names]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OSError) as error:
        raise UserError(
            f"{name} cannot be read: {index.name} does not say which file holds which weights "
            f"({type(error).__name__}: {error}). Download or copy it again."
        ) from error


def _how_to_get_weights(folder: Path, auto_class: str) -> str:
    """What a folder has in place of weights in safetensors, and how to convert that."""
    if others := [file.name for file in sorted(folder.glob("*.safetensors"))]:
        return (
            f"It has {first_names(others)}: copy the index that belongs to these shards, too; a single file must be "
            f"called {SINGLE_FILE}."
        )
    if gguf := gguf_instructions(folder, auto_class):
        return gguf
    pickles = list(dict.fromkeys(file for pattern in _PICKLES for file in sorted(folder.glob(pattern))))
    if not pickles:
        return f"Finish the download, or copy the weights into {folder}."
    return (
        f"Its weights are pickles ({first_names([file.name for file in pickles])}), which are not read, because a "
        "pickle can run any code when it is opened. If you trust their source, convert them once:\n"
        f"{_pickle_instructions(pickles[0], auto_class)}"
    )


def _pickle_instructions(file: Path, auto_class: str) -> str:
    if file.name.startswith("pytorch_model"):  # transformers knows it, and its shards
        return (
            f"  from transformers import {auto_class}\n"
            f'  {auto_class}.from_pretrained("{file.parent}", use_safetensors=False).save_pretrained("{file.parent}")'
        )
    return (
        "  import torch\n"
        "  from safetensors.torch import save_file\n"
        f'  weights = torch.load("{file}", weights_only=True)\n'
        f'  save_file(weights, "{file.parent / SINGLE_FILE}", metadata={{"format": "pt"}})'
    )


def _is_pointer(path: Path) -> bool:
    if path.stat().st_size > _POINTER_BYTES:
        return False
    with path.open("rb") as file:
        return file.read(len(_POINTER)) == _POINTER


def _open(path: Path) -> Any:
    """A file as safetensors opens it; only its header is read."""
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, ValueError, OSError) as error:
        raise _damaged(path, error) from error


def _element_counts(path: Path, file: Any) -> dict[str, int]:
    """The number of elements of each weight in an open file."""
    from safetensors import SafetensorError

    try:
        return {key: math.prod(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, ValueError, OSError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> UserError:
    size, full_size = path.stat().st_size, _size_by_header(path) or 0
    state = f"is cut off: it has {size:,} of {full_size:,} bytes" if size < full_size else "is cut off or damaged"
    return UserError(
        f"{path} {state} ({error}). Download or copy it again, and compare its size with that of the original."
    )


@contextmanager
def _loaded_from(files: Mapping[Path, Any]) -> Iterator[None]:
    """Give transformers these open files, where it would open them as they are, each once.

    Note: it takes no open file as an argument, and a dict of weights only without a folder.
    """
    from transformers import modeling_utils

    waiting, original = {**files}, modeling_utils.safe_open

    def safe_open(file: str, framework: str = "pt", device: Any = "cpu", backend: str = "mmap") -> Any:
        same = (framework, str(device), backend) == ("pt", "cpu", "mmap")
        held = waiting.pop(Path(file), None) if same else None
        return original(file, framework=framework, device=device, backend=backend) if held is None else held

    modeling_utils.safe_open = safe_open
    try:
        yield
    finally:
        modeling_utils.safe_open = original
        waiting.clear()  # another thread that loads a model may still call it


def _size_by_header(path: Path) -> int | None:
    """How many bytes a file of weights should have, by its header; None if the header is damaged too."""
    header = _header(path)
    if not header:
        return None
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
    return 8 + length + max(entry["data_offsets"][1] for entry in header.values())


def _header(path: Path) -> dict[str, Any] | None:
    """What a file of safetensors says about its weights, by their names; None if that is damaged."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        text = file.read(length) if length <= min(path.stat().st_size, _MOST_HEADER) else b""
    try:
        entries = {key: entry for key, entry in json.loads(text).items() if key != "__metadata__"}
    except (ValueError, AttributeError, RecursionError):
        return None
    return entries if all(map(_is_entry, entries.values())) else None


def _is_entry(entry: object) -> bool:
    """Whether it says what safetensors says of a weight."""
    match entry:
        case {"dtype": str(), "shape": [*shape], "data_offsets": [int(), int()]}:
            return all(isinstance(size, int) for size in shape)
    return False
