"""The example of docs/connectors.md runs as it stands, between small models."""

import re
from pathlib import Path

import pytest

from latentlens_dag.models.loading import load_vlm
from tests.training.parts import pictures, save_encoder, save_language_model

ROOT = Path(__file__).parents[2]


def test_the_example_makes_a_model_that_shows_its_visual_tokens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save_language_model("Llama", tmp_path / "path/of/a/language/model")
    save_encoder("clip", tmp_path / "path/of/a/vision/encoder")
    (tmp_path / "pictures").mkdir()
    for number, (image, captions) in enumerate(zip(*pictures(5), strict=True)):
        image.save(tmp_path / "pictures" / f"{number}.png")
        (tmp_path / "pictures" / f"{number}.txt").write_text(captions[0] + "\n")
    text = (ROOT / "docs" / "connectors.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    exec(compile(code.replace("steps=2000", "steps=3"), "docs/connectors.md", "exec"), {})
    states = load_vlm(tmp_path / "work/model").visual_states(pictures(2)[0], [0, 1])
    assert states.tokens.height == 2 * 16
