"""What docs/threat-model.md promises has tests, and its limits are those of the code."""

import re
from pathlib import Path

from latentlens_dag.dag import yaml_tree
from latentlens_dag.inputs.images import FORMATS

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "threat-model.md").read_text(encoding="utf-8")


def test_every_promise_names_tests_that_exist() -> None:
    rows = [line for line in TEXT.split("## What is promised")[1].split("\n") if line.startswith("| ")][1:]
    assert len(rows) == 10
    for row in rows:
        named = re.findall(r"`(tests/[\w./]+)`", row)
        assert named and all((ROOT / name).is_file() for name in named), row


def test_its_limits_and_formats_are_those_of_the_code() -> None:
    assert f"aliases may stand for {yaml_tree._MOST_VALUES:,} values" in TEXT
    assert " ".join(re.findall(r"[A-Z]{3,4}", ", ".join(FORMATS).upper())) == "BMP GIF JPEG PNG TIFF WEBP"
    assert "BMP, GIF, JPEG, PNG, TIFF and WebP by their content" in TEXT
