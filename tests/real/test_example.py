"""The example study of a real language model, within what it may take; and a real GGUF file, converted as is said."""

import csv
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from latentlens_dag import load_language_model
from latentlens_dag.errors import UserError
from latentlens_dag.models.fingerprints import fingerprint
from tests.real.answers import told_answers, wrongly_told
from tests.real.models import SMOLLM2

pytestmark = pytest.mark.soak
REPOSITORY = Path(__file__).parents[2]


def test_the_example_study_of_smollm2_stays_within_150_cpu_seconds_and_its_memory(
    smollm2_folder: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "tests.benchmarks.smollm2", str(tmp_path / "project")]
    found = subprocess.run(command, capture_output=True, text=True, check=False, cwd=REPOSITORY)
    assert found.returncode == 0, found.stdout + found.stderr
    lines = found.stdout[found.stdout.index("text,layer,from_layer,cosine,nearest") :].splitlines()
    answers = list(csv.DictReader(lines))
    for file in ("README.md", "docs/examples/smollm2/README.md"):
        document = (REPOSITORY / file).read_text()
        assert len(list(told_answers(document))) >= 20, file
        assert wrongly_told(document, answers, apart=0.001) == [], file


def test_a_real_gguf_file_is_converted_by_the_lines_that_refuse_it(smollm2_folder: Path, tmp_path: Path) -> None:
    file = SMOLLM2.download(tmp_path)
    with pytest.raises(UserError, match="Its weights are a GGUF file") as refused:
        load_language_model(file)
    lines = [line.strip() for line in str(refused.value).splitlines() if line.startswith("  ")]
    default = torch.get_default_dtype()
    exec("\n".join(lines), {})
    assert torch.get_default_dtype() == default
    made = load_language_model(f"{file.parent}-safetensors", device="cpu", dtype="float32")
    assert fingerprint(made) == fingerprint(load_language_model(smollm2_folder, device="cpu"))
