from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from latentlens_dag.demo.__main__ import main
from latentlens_dag.demo.scenes import PATCHES, SceneSource, patch_regions
from latentlens_dag.demo.training import (
    Gate,
    GateError,
    check_gates,
    load_checkpoint,
    read_figures,
    write_figures,
)
from latentlens_dag.demo.vision import (
    VisionShape,
    VisionTraining,
    labeled_scenes,
    new_encoder,
    patch_features,
    train_vision_encoder,
)
from latentlens_dag.training.schedule import warmup_cosine

TINY = VisionTraining(
    cycles=(3, 1),
    dense_steps=2,
    batch=2,
    warmup=2,
    shape=VisionShape(hidden=16, layers=1, heads=2, mlp=16),
)


@pytest.fixture(scope="module")
def source() -> SceneSource:
    return SceneSource.open()


def test_labels_are_the_names_of_the_patches(source: SceneSource) -> None:
    pixels, labels, covered = labeled_scenes(source, [5], [(1, 4)])
    scene, rendered = source(5)
    regions = patch_regions(rendered.labels, len(scene.names))
    assert [source.world.class_names[label] for label in labels[0]] == [scene.names[region] for region in regions]
    assert pixels.shape == (1, 3, 192, 192)
    assert covered.min() > 0 and covered.max() == 1


def test_features_are_hidden_state_minus_one_without_the_class_token() -> None:
    torch.manual_seed(0)
    encoder = new_encoder(TINY.shape).eval()
    pixels = torch.randn(1, 3, 192, 192)
    with torch.no_grad():
        states = encoder(pixel_values=pixels, output_hidden_states=True).hidden_states
        features = patch_features(encoder, pixels)
    assert len(states) == TINY.shape.layers + 1
    assert features.shape == (1, PATCHES, 16)
    assert torch.equal(features, states[-1][:, 1:])


def test_an_interrupted_training_ends_with_the_same_weights(
    source: SceneSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import latentlens_dag.demo.vision as vision

    train_vision_encoder(source, tmp_path / "straight", TINY, checkpoint_s=1000, held_out=2)
    steps = vision.train_step

    def killed_at_step_two(*arguments: object) -> tuple[float, float]:
        if arguments[-1] == 2:
            raise KeyboardInterrupt
        return steps(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(vision, "train_step", killed_at_step_two)
    with pytest.raises(KeyboardInterrupt):
        train_vision_encoder(source, tmp_path / "killed", TINY, checkpoint_s=-1, held_out=2)
    monkeypatch.undo()
    assert read_figures(tmp_path / "killed") is None
    figures = train_vision_encoder(source, tmp_path / "killed", TINY, checkpoint_s=1000, held_out=2)
    straight, resumed = load_checkpoint(tmp_path / "straight"), load_checkpoint(tmp_path / "killed")
    assert straight is not None and resumed is not None
    for name, weight in straight["encoder"].items():
        assert torch.equal(weight, resumed["encoder"][name]), name
    assert figures["scenes"] == 8
    assert read_figures(tmp_path / "killed") is not None


def test_a_checkpoint_of_other_settings_is_refused(source: SceneSource, tmp_path: Path) -> None:
    train_vision_encoder(source, tmp_path, replace(TINY, cycles=(1,)), checkpoint_s=1000, held_out=1)
    with pytest.raises(ValueError, match="remove the folder"):
        train_vision_encoder(source, tmp_path, TINY, held_out=1)


def test_a_failed_gate_names_its_figure() -> None:
    gates = (Gate("object_accuracy", 0.95), Gate("background_accuracy", 0.98))
    check_gates("vision", {"object_accuracy": 0.96, "background_accuracy": 0.99}, gates)
    with pytest.raises(GateError, match=r"object_accuracy is 0\.940, gate 0\.95") as failure:
        check_gates("vision", {"object_accuracy": 0.94, "background_accuracy": 0.99}, gates)
    assert "background_accuracy" not in str(failure.value)


def test_the_learning_rate_warms_up_and_falls() -> None:
    rates = [warmup_cosine(step, 100, 10) for step in range(101)]
    assert rates[9] == pytest.approx(1.0)
    assert np.all(np.diff(rates[:10]) > 0)
    assert np.all(np.diff(rates[10:]) <= 0)
    assert rates[-1] == pytest.approx(0.02)


def test_every_cycle_warms_up_and_falls_and_later_ones_peak_lower() -> None:
    training = VisionTraining(cycles=(100, 50), warmup=10, learning_rate=3e-3)
    rates = [training.rate(step) for step in range(training.steps)]
    assert max(rates[:100]) == rates[9] == pytest.approx(3e-3)
    assert max(rates[100:]) == rates[104] == pytest.approx(2e-3)
    with pytest.raises(ValueError, match="end before"):
        training.rate(150)


def test_the_command_stops_at_a_failed_gate_and_names_the_figure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_figures(tmp_path / "vision", {"object_accuracy": 0.5, "background_accuracy": 0.99})
    assert main(["vision", "--work", str(tmp_path)]) == 1
    assert "object_accuracy is 0.500, gate 0.95" in capsys.readouterr().err
    write_figures(tmp_path / "vision", {"object_accuracy": 0.97, "background_accuracy": 0.99})
    assert main(["vision", "--work", str(tmp_path)]) == 0


def test_the_connector_asks_for_the_stages_before_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["connector", "--work", str(tmp_path)]) == 1
    assert "python -m latentlens_dag.demo language" in capsys.readouterr().err
