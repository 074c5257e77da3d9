import json
import subprocess
import sys
from pathlib import Path

from latentlens_dag.training.checkpoint import CHECKPOINT
from latentlens_dag.training.feature_files import write_features
from tests.training.parts import encoder, pictures, save_language_model

ROOT = Path(__file__).parents[2]


def test_a_training_that_is_killed_five_times_ends_with_the_same_bytes(tmp_path: Path) -> None:
    write_features(encoder("clip", tmp_path / "vision"), pictures(12)[0], tmp_path / "features")
    save_language_model("Llama", tmp_path / "language")
    command = [sys.executable, "-m", "tests.training.killed_training", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=600)
    found = json.loads(done.stdout)
    assert found["killed"] == found["undisturbed"]
    assert found["kills"] == 5
    assert (tmp_path / "killed" / CHECKPOINT).is_file()
