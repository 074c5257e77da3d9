"""Small files of strangers that end the process or fill the memory of whoever opens them: each is refused by name."""

import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from latentlens_dag.errors import UserError
from latentlens_dag.index.reference_import import import_index

FILES = Path(__file__).parent / "files"
READ_FOOTER = """
import sys
from pathlib import Path
from latentlens_dag.release.manifest import ReleaseFile
from latentlens_dag.release.parquet_checks import parquet_problem
from latentlens_dag.schema import TABLES
path = Path(sys.argv[1])
file = ReleaseFile("diversity.parquet", path.stat().st_size, "0" * 64, 12, "diversity")
print(parquet_problem(path, file, TABLES["diversity"]))
"""


def test_a_footer_with_a_wrong_histogram_is_a_problem_and_not_the_end_of_the_process() -> None:
    command = [sys.executable, "-c", READ_FOOTER, str(FILES / "definition_levels.parquet")]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-300:]
    assert run.stdout.strip() != "None"


ROW = {"token_str": "a", "token_id": 1, "caption": "a dog", "position": 0}


def _save(folder: Path, embeddings: torch.Tensor) -> Path:
    file = folder / "theirs" / "layer_1" / "embeddings_cache.pt"
    file.parent.mkdir(parents=True)
    torch.save({"embeddings": embeddings, "metadata": [ROW] * len(embeddings)}, file)
    return file


def _rewrite(file: Path, change: Callable[[bytes], bytes]) -> None:
    """Change the pickle of a file of `torch.save`, whose checksum then is right."""
    with zipfile.ZipFile(file) as found:
        members = {member.filename: found.read(member) for member in found.infolist()}
    with zipfile.ZipFile(file, "w") as written:
        for name, content in members.items():
            written.writestr(name, change(content) if name.endswith("data.pkl") else content)


@pytest.mark.parametrize(
    ("whole", "damaged"),
    [
        pytest.param(rb"K\x10K\x01\x86", b"K\x10", id="a stride that is no pair"),
        pytest.param(rb"K\x00u", b"u", id="a field without a value"),
    ],
)
def test_a_pickle_that_is_damaged_behind_a_right_checksum_is_refused_by_name(
    tmp_path: Path, whole: bytes, damaged: bytes
) -> None:
    file = _save(tmp_path, torch.ones(3, 16).half())
    _rewrite(file, lambda pickle: re.sub(whole, damaged, pickle, count=1))
    with pytest.raises(UserError, match=r"embeddings_cache\.pt"):
        import_index(str(tmp_path / "theirs"), tmp_path / "ours")


def test_a_pickle_that_was_only_packed_anew_is_read(tmp_path: Path) -> None:
    _rewrite(_save(tmp_path, torch.ones(3, 16).half()), lambda pickle: pickle)
    assert import_index(str(tmp_path / "theirs"), tmp_path / "ours").rows == 1


def test_a_matrix_of_one_number_seen_many_times_is_refused_before_memory_is_taken(tmp_path: Path) -> None:
    file = _save(tmp_path, torch.ones(1, dtype=torch.float16).expand(1, 4_000_000))
    assert file.stat().st_size < 2_000
    with pytest.raises(UserError, match=r"embeddings_cache\.pt"):
        import_index(str(tmp_path / "theirs"), tmp_path / "ours")
