"""A vision tower of our own that gives one row per visual token, made of any encoder of transformers.

Llava takes encoders whose hidden states have a row per patch, after at most one other row. Where patches are averaged,
more rows stand before them (registers), or an encoder is convolutional, the tower is this one: it runs the encoder and
gives its features as the last hidden state. A checkpoint names it in its config.json as `latentlens_vision`; importing
this module is all that `AutoModelForImageTextToText` needs to load it. Its weights are read from safetensors as those
of any model of transformers, and no code comes with the checkpoint.

`patch_size` is the side of a visual token in pixels of the encoder's input, so that LlavaProcessor counts them right.
"""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor
from transformers import CONFIG_MAPPING, AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

MODEL_TYPE = "latentlens_vision"


class VisionGridConfig(PreTrainedConfig):  # type: ignore[misc]  # transformers has no types here
    """What of an encoder is one visual token."""

    model_type = MODEL_TYPE
    sub_configs: ClassVar[dict[str, Any]] = {"encoder": AutoConfig}

    def __init__(
        self,
        encoder: dict[str, Any] | PreTrainedConfig | None = None,
        feature_layer: int = -1,
        pool: int = 1,
        image_size: int = 224,
        patch_size: int = 16,
        hidden_size: int = 768,
        **others: Any,
    ) -> None:
        """Take the settings.

        Args:
            encoder: the config of the encoder.
            feature_layer: the hidden state that gives the features.
            pool: rows and columns of its patches, or of its map, that are averaged to a visual token.
            image_size: side of the encoder's input in pixels.
            patch_size: side of a visual token in pixels of that input.
            hidden_size: width of the features.
            others: of any config.
        """
        if isinstance(encoder, dict):
            encoder = CONFIG_MAPPING[encoder.get("model_type", "clip_vision_model")](**encoder)
        self.encoder = CONFIG_MAPPING["clip_vision_model"]() if encoder is None else encoder
        self.feature_layer, self.pool = feature_layer, pool
        self.image_size, self.patch_size, self.hidden_size = image_size, patch_size, hidden_size
        super().__init__(**others)


class VisionGrid(PreTrainedModel):  # type: ignore[misc]
    """An encoder, and a row per visual token of its features."""

    config_class = VisionGridConfig
    config: VisionGridConfig
    base_model_prefix = "encoder"
    main_input_name = "pixel_values"
    input_modalities = ("image",)

    def __init__(self, config: VisionGridConfig) -> None:
        """Make the encoder, untrained."""
        super().__init__(config)
        self.encoder = AutoModel.from_config(config.encoder)
        self.post_init()

    def forward(self, pixel_values: Tensor, **_: Any) -> BaseModelOutput:
        """The features of images [N, 3, side, side], as the last hidden state [N, tokens, hidden] and the only one."""
        states = self.encoder(pixel_values=pixel_values, output_hidden_states=True).hidden_states
        side = self.config.image_size // self.config.patch_size * self.config.pool
        rows = pooled(patch_rows(states[self.config.feature_layer], side * side), self.config.pool)
        return BaseModelOutput(last_hidden_state=rows, hidden_states=(rows,))


def patch_rows(states: Tensor, patches: int) -> Tensor:
    """The rows of the patches, [N, patches, hidden], of a hidden state.

    It may have other rows before them, or be a map [N, hidden, rows, columns] of a convolutional encoder.
    """
    if states.ndim == 4:
        return states.flatten(2).transpose(1, 2)
    return states[:, states.shape[1] - patches :]


def pooled(rows: Tensor, pool: int) -> Tensor:
    """The means of squares of `pool` x `pool` patches: [N, n, hidden] to [N, n / pool^2, hidden]."""
    if pool == 1:
        return rows
    count, patches, hidden = rows.shape
    side = round(patches**0.5) // pool
    squares = rows.reshape(count, side, pool, side, pool, hidden)
    return squares.float().mean(dim=(2, 4)).to(rows.dtype).reshape(count, side * side, hidden)


AutoConfig.register(MODEL_TYPE, VisionGridConfig)
AutoModel.register(VisionGridConfig, VisionGrid)
