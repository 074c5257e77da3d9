"""The example studies in docs/examples load as they stand, with nothing but the models' config.json."""

import json
import re
import shutil
from pathlib import Path

import pytest

from tests.dag.conftest import opened
from tests.training import parts

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
VISION: dict[str, object] = {"vision_config": {}}
# What config.json says of each in its own words; that of LLaVA-1.5 leaves out what is the default of a Llama.
CONFIGS: dict[str, tuple[str, dict[str, object]]] = {
    "qwen2_vl_7b": (
        "Qwen2-VL-7B-Instruct",
        {"model_type": "qwen2_vl", "num_hidden_layers": 28, "hidden_size": 3584, "vocab_size": 152064},
    ),
    "qwen2_5_vl_32b": (
        "Qwen2.5-VL-32B-Instruct",
        {"model_type": "qwen2_5_vl", "num_hidden_layers": 64, "hidden_size": 5120, "vocab_size": 152064},
    ),
    "llava_1_5_7b": (
        "llava-1.5-7b-hf",
        {"model_type": "llava", "text_config": {"model_type": "llama", "vocab_size": 32064}},
    ),
    "llava_next_34b": (
        "llava-v1.6-34b-hf",
        {
            "model_type": "llava_next",
            "text_config": {
                "model_type": "llama",
                "num_hidden_layers": 60,
                "hidden_size": 7168,
                "vocab_size": 64064,
            },
        },
    ),
}
SMOLLM2 = {"model_type": "llama", "num_hidden_layers": 30, "hidden_size": 576, "vocab_size": 49152}
PAPER = {  # appendix B: the contextual layers of models of 28, 32, 60 and 64 blocks
    "qwen2_vl_7b": [1, 2, 4, 8, 16, 24, 26, 27],
    "qwen2_5_vl_32b": [1, 2, 4, 8, 16, 32, 48, 56, 62, 63],
    "llava_1_5_7b": [1, 2, 4, 8, 16, 24, 30, 31],
    "llava_next_34b": [1, 2, 4, 8, 16, 30, 45, 58, 59],
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """All examples in one project, with a stand-in for the package of sentences and no weights at all."""
    shutil.copytree(EXAMPLES, tmp_path / "assets", ignore=shutil.ignore_patterns("ablations"))
    (tmp_path / "workspace.yaml").write_text("load_from: []\n")
    (tmp_path / "pictures").mkdir()
    sentences = tmp_path / "site" / "latentlens" / "data" / "concepts.txt"
    sentences.parent.mkdir(parents=True)
    (sentences.parents[1] / "__init__.py").write_text("raise ImportError('never imported')")
    sentences.write_text("A brown dog.\n")
    monkeypatch.syspath_prepend(tmp_path / "site")
    configs = [(folder, {**VISION, **config}) for folder, config in CONFIGS.values()]
    for folder, config in [*configs, ("SmolLM2-135M-Instruct", SMOLLM2)]:
        (tmp_path / "models" / folder).mkdir(parents=True)
        (tmp_path / "models" / folder / "config.json").write_text(json.dumps(config))
    (tmp_path / "assets" / "smollm2" / "sentences.txt").write_text("We sat on the river bank.\n")
    return tmp_path


def test_every_example_loads_without_weights_and_asks_for_the_layers_of_the_paper(project: Path) -> None:
    assert {path.parent.name for path in EXAMPLES.glob("*/defs.yaml")} == {"ablations", "paper", "smollm2", *CONFIGS}
    with opened(project) as one:
        keys = {"/".join(key.path) for key, _ in one.select().targets}
    for name, layers in PAPER.items():
        contextual = {key for key in keys if key.startswith(f"index/{name}_index/table/")}
        visual = {key for key in keys if key.startswith(f"study/{name}/latentlens/")}
        assert contextual == {f"index/{name}_index/table/L{layer:02d}" for layer in layers}
        assert visual == {f"study/{name}/latentlens/V{layer:02d}" for layer in [0, *layers]}


def test_a_study_that_is_switched_off_needs_no_model_and_has_no_assets(project: Path) -> None:
    file = project / "assets" / "qwen2_vl_7b" / "defs.yaml"
    index, study = file.read_text().split("---\n")
    absent = study.replace("models/", "absent/").replace("  top_k: 5", "  top_k: 5\n  enabled: false")
    file.write_text(f"{index}---\n{absent}")
    with opened(project) as one:
        studies = {key.path[1] for key, _ in one.select().targets if key.path[0] == "study"}
    assert studies == {"smollm2", *CONFIGS} - {"qwen2_vl_7b"}


def test_the_words_of_the_smollm2_example_are_in_two_of_its_texts_or_three_and_in_its_query() -> None:
    folder = EXAMPLES / "smollm2"
    words, texts = ((folder / name).read_text().splitlines() for name in ("words.txt", "texts.txt"))
    found = {word: [text for text in texts if word in re.findall(r"\w+", text)] for word in words}
    assert {len(of_word) for of_word in found.values()} == {2, 3}
    assert sorted(text for of_word in found.values() for text in of_word) == sorted(texts)
    assert set(words) <= set(re.findall(r"'(\w+)'", (folder / "answers.sql").read_text()))


def test_the_ablations_load_and_train_each_connector_on_the_same_features(tmp_path: Path) -> None:
    here = Path(shutil.copytree(EXAMPLES / "ablations", tmp_path / "assets" / "ablations"))
    (tmp_path / "workspace.yaml").write_text("load_from: []\n")
    parts.save_encoder("clip", here / "encoder")
    parts.save_language_model("Llama", here / "language")
    for name in ("learned", "held_out"):
        (here / name).mkdir()
    (here / "regions.parquet").touch()
    (here / "sentences.txt").write_text("A dog.\n")
    with opened(tmp_path) as one:
        keys = {key.to_user_string() for key in one.graph.get_all_asset_keys()}
    names = ("mlp_0", "mlp_1", "linear_0", "half", "whole_captions")
    assert {key.split("/")[1] for key in keys if key.startswith("connector/")} == set(names)
    assert {key for key in keys if key.startswith("features/")} == {
        "features/seen/features",
        "features/seen/vision_encoder",
    }
    assert {key.split("/")[1] for key in keys if key.startswith("study/")} == {
        "mlp_0_0",
        "mlp_0_500",
        *(f"{name}_2000" for name in names),
    }
