"""Indexes to import that were made to do harm: each is refused by name, in little time and memory."""

from __future__ import annotations

import os
import pickle
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from latentlens_dag.errors import UserError
from latentlens_dag.index.reference_import import import_index
from latentlens_dag.inputs.texts import MAX_CHARACTERS

ROW = {"token_str": "a", "token_id": 1, "caption": "a dog", "position": 0}


def _save(folder: Path, embeddings: torch.Tensor, rows: list[dict[str, Any]]) -> Path:
    file = folder / "theirs" / "layer_1" / "embeddings_cache.pt"
    file.parent.mkdir(parents=True)
    torch.save({"embeddings": embeddings, "metadata": rows}, file)
    return file


def _with_pickle(file: Path, content: bytes, compression: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(file) as found:
        members = {member.filename: found.read(member) for member in found.infolist()}
    with zipfile.ZipFile(file, "w", compression) as written:
        for name, member in members.items():
            written.writestr(name, content if name.endswith("data.pkl") else member)


def _refused(folder: Path) -> str:
    before = time.process_time()
    with pytest.raises(UserError, match=r"embeddings_cache\.pt") as caught:
        import_index(str(folder / "theirs"), folder / "ours")
    assert time.process_time() - before < 10
    assert not (folder / "ours").exists()
    return str(caught.value)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        pytest.param(b"\x80\x02" + b")" + b"\x85" * 1_000_000 + b"K\x00}" + b"s.", "damaged", id="no dictionary"),
        pytest.param(b"\x80\x02}" + b")" + b"\x85" * 2_000_000 + b"K\x00s.", "takes too much", id="a key too deep"),
        pytest.param(b"\x80\x02cx" + b"y" * 200_000 + b"\nz\n.", "more than 200 letters", id="a long name"),
        pytest.param(b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R.", "os.system", id="a command"),
    ],
)
def test_a_pickle_that_ends_or_stops_its_reader_is_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    _with_pickle(_save(tmp_path, torch.ones(1, 8).half(), [ROW]), content)
    assert reason in _refused(tmp_path)


def test_no_command_of_a_pickle_is_run(tmp_path: Path) -> None:
    class Command:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "RAN"),)

    _with_pickle(_save(tmp_path, torch.ones(1, 8).half(), [ROW]), pickle.dumps(Command(), 2))
    assert "mkdir, which only runs as code" in _refused(tmp_path)
    assert not (tmp_path / "RAN").exists()


def test_a_compressed_file_is_refused_unread(tmp_path: Path) -> None:
    file = _save(tmp_path, torch.ones(1, 8).half(), [ROW])
    _with_pickle(file, b"\0" * 200_000_000, zipfile.ZIP_DEFLATED)
    assert file.stat().st_size < 1_000_000
    assert "is compressed" in _refused(tmp_path)


@pytest.mark.parametrize(
    "embeddings",
    [
        pytest.param(torch.ones(1, dtype=torch.float16).expand(1, 100_000), id="one number"),
        pytest.param(torch.ones(4, 16).half()[:1].expand(1000, 16), id="one row"),
    ],
)
def test_a_matrix_that_repeats_numbers_is_refused(tmp_path: Path, embeddings: torch.Tensor) -> None:
    _save(tmp_path, embeddings, [ROW] * len(embeddings))
    assert "does not hold as many" in _refused(tmp_path)


def test_a_part_of_a_larger_matrix_is_read(tmp_path: Path) -> None:
    _save(tmp_path, torch.rand(4, 16).half()[1:3, ::2], [ROW, {**ROW, "position": 1}])
    assert import_index(str(tmp_path / "theirs"), tmp_path / "ours").rows == 2


def test_vectors_wider_than_those_of_any_model_are_refused(tmp_path: Path) -> None:
    _save(tmp_path, torch.ones(1, 200_000).half(), [ROW])
    assert "200,000 numbers wide" in _refused(tmp_path)


def test_a_sentence_longer_than_a_sentence_is_refused(tmp_path: Path) -> None:
    _save(tmp_path, torch.ones(1, 8).half(), [{**ROW, "caption": "a" * (MAX_CHARACTERS + 1)}])
    assert "100,001 characters" in _refused(tmp_path)


def test_a_sentence_of_one_letter_takes_time_in_proportion(tmp_path: Path) -> None:
    rows = [{**ROW, "caption": "a" * 20_000, "position": position} for position in range(2000)]
    _save(tmp_path, torch.rand(2000, 8).half(), rows)
    before = time.process_time()
    assert import_index(str(tmp_path / "theirs"), tmp_path / "ours").placed == 0
    assert time.process_time() - before < 20


@pytest.mark.parametrize("text", ["[" * 100_000, '{"layers": [1e999]}', '{"layers": 3}', "[1]", "\ud800"])
def test_a_list_of_layers_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    _save(tmp_path, torch.ones(1, 8).half(), [ROW])
    (tmp_path / "theirs/metadata.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(UserError, match=r"metadata\.json is damaged"):
        import_index(str(tmp_path / "theirs"), tmp_path / "ours")
