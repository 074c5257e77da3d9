"""The connector as a module that learns, and its weights as LLaVA's projector has them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from latentlens_dag.training.standardization import Standardization

if TYPE_CHECKING:
    from torch import Tensor, nn

Kind = Literal["mlp", "linear"]
_GELU_RMS = 0.65
"""The RMS of the GELU of a standard normal."""
PROJECTOR_ACTIVATION: dict[Kind, str] = {"mlp": "gelu", "linear": "linear"}
"""`projector_hidden_act` of a LlavaConfig, by kind."""


def new_connector(hidden: int, width: int, seed: int, kind: Kind = "mlp") -> nn.Module:
    """An untrained connector from `hidden` to `width`, for inputs and outputs of RMS 1.

    `mlp` is LLaVA's: two layers with a GELU between them; `linear` is one layer.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    sizes = [(hidden, width), (width, width)] if kind == "mlp" else [(hidden, width)]
    layers = [torch.nn.Linear(*size) for size in sizes]
    for layer in layers:
        torch.nn.init.normal_(layer.weight, std=layer.in_features**-0.5, generator=generator)
        torch.nn.init.zeros_(layer.bias)
    if kind == "linear":
        return torch.nn.Sequential(*layers)
    layers[1].weight.data /= _GELU_RMS
    return torch.nn.Sequential(layers[0], torch.nn.GELU(), layers[1])


def llava_weights(connector: nn.Module, standardization: Standardization, output_rms: float) -> dict[str, Tensor]:
    """The weights of LLaVA's projector that takes features as the encoder gives them and gives embeddings.

    Training sees standardized features and multiplies the output by `output_rms`, so that Adam meets an ordinary
    connector; both are linear, and go into the weights exactly. A linear connector becomes a projector without
    activation (`PROJECTOR_ACTIVATION`) whose second layer is the identity.

    Returns:
        float32: linear_1.weight [width, hidden], linear_2.weight [width, width], and their biases [width].
    """
    import torch

    trained = {name: weight.detach().float().cpu() for name, weight in connector.state_dict().items()}
    if "2.weight" not in trained:
        folded = _folded(trained["0.weight"] * output_rms, trained["0.bias"] * output_rms, standardization)
        width = len(folded["linear_1.bias"])
        return folded | {"linear_2.weight": torch.eye(width), "linear_2.bias": torch.zeros(width)}
    return _folded(trained["0.weight"], trained["0.bias"], standardization) | {
        "linear_2.weight": trained["2.weight"] * output_rms,
        "linear_2.bias": trained["2.bias"] * output_rms,
    }


def _folded(weight: Tensor, bias: Tensor, standardization: Standardization) -> dict[str, Tensor]:
    """A first layer that takes features as the encoder gives them."""
    raw = weight @ standardization.whitening / standardization.rms
    return {"linear_1.weight": raw, "linear_1.bias": bias - raw @ standardization.mean}
