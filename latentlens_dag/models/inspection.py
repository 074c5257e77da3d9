"""Inspecting a model before declaring a study: whether it can be read, how it sees an image, and the cost.

Note: times and bytes are estimates from one image and one batch on this machine. For a family whose number of visual
tokens depends on the image, use an image of a typical size.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from latentlens_dag.errors import UserError
from latentlens_dag.models.families.registry import check_family, why_unmapped
from latentlens_dag.models.families.token_map import PADDING, WITHOUT_PIXELS, TokenMap, grid_view, unmapped
from latentlens_dag.models.layers import auto_contextual_layers, auto_visual_layers
from latentlens_dag.models.model_ref import ModelRef, model_ref
from latentlens_dag.models.remote_code import may_have_vision

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image

    from latentlens_dag.models.language_model import LanguageModel
    from latentlens_dag.models.self_checks import Dedup
    from latentlens_dag.models.text_checks import ModelCheck
    from latentlens_dag.models.vlm import Vlm

IMAGES = 1000
"""The number of images for which time and disk space are estimated."""
_LOCALIZED_BYTES = 10**9  # models up to this size run `localization` by default
_TEXTS, _TEXT_TOKENS = 16, 32
_ROW_BYTES = 28  # of a stored state besides the vector: image id, token index, norm


class ModelSize(NamedTuple):
    """The kind of a model, and the size of its language model."""

    model_type: str
    model_class: str
    blocks: int
    width: int
    vocabulary: int
    parameters: int
    """Of the language model: decoder, embedding and unembedding; shared ones count once."""
    bytes_in_memory: int
    """The size of these parameters."""
    dtype: str
    device: str


class View(NamedTuple):
    """A view of an image, with its padding: the global view, the tiles, or tokens without a box."""

    name: str
    tokens: int
    tiles: int
    rows: int
    columns: int


class TokenLayout(NamedTuple):
    """The layout of a model's visual tokens for an image."""

    width: int
    height: int
    tokens: int
    views: list[View]
    newlines: int
    padding: int
    """Tokens outside of the image, which are counted in their views too."""
    first_box: list[float] | None
    """The box of the first token with pixels: x0, y0, x1, y1 in pixels of the image; None if all are unmapped."""
    last_box: list[float] | None
    covered: float
    """The share of the image that is in any box."""


class Cost(NamedTuple):
    """Measured times, and estimates for IMAGES images like the inspected one."""

    text_batch_s: float
    text_tokens_per_s: float
    image_s: float | None = None
    images_s: float | None = None
    images_bytes: int | None = None
    """The size of the visual states at the automatic layers."""


@dataclass(frozen=True)
class Inspection:
    """The report of `inspect-model`."""

    source: str
    revision: str | None
    size: ModelSize
    layout: TokenLayout | None
    """None for a language model without vision."""
    checks: list[ModelCheck]
    failed: list[str]
    """The failed checks, without those that `dedup: sentence` makes irrelevant."""
    not_checked: str | None
    """Why `localization` was not run; None if it was, or there are no visual tokens."""
    cost: Cost
    dedup: Dedup
    """The setting that an index of the model needs."""
    contextual_layers: list[int]
    visual_layers: list[int]
    defs: str
    """A defs.yaml to start from."""

    def facts(self) -> dict[str, Any]:
        """The report as plain values, for JSON."""
        plain = {name: getattr(self, name) for name in self.__dataclass_fields__}
        layout = self.layout and {**self.layout._asdict(), "views": [view._asdict() for view in self.layout.views]}
        parts = {"size": self.size._asdict(), "layout": layout, "cost": self.cost._asdict()}
        return plain | parts | {"checks": [check._asdict() for check in self.checks]}


def inspect_model(
    source: str | Path | ModelRef,
    image: Image | None = None,
    revision: str | None = None,
    localize: bool | None = None,
    picture: Path | None = None,
    trust_remote_code: bool = False,
) -> Inspection:
    """Load a model, run its self-checks, and measure its cost.

    Args:
        source: a folder, a Hub id, or a `ModelRef`.
        image: an image for the model; by default noise of 150 x 100 pixels.
        revision: for a Hub id, a full commit, branch or tag.
        localize: whether to run `localization`, several passes per view; by default only for models up to 1 GB.
        picture: a PNG file to write, the image with its tokens.
        trust_remote_code: as in `load_vlm`.

    Raises:
        UserError: if there is no model, it cannot be read, or it does not accept the image.
    """
    from latentlens_dag.models.configs import read_config
    from latentlens_dag.models.loading import checked_folder, load_vlm, load_with_language_model
    from latentlens_dag.models.self_checks import check_language_model, noise_image

    ref = model_ref(source, revision, trust_remote_code)
    folder, name = checked_folder(ref, weights=False)
    config = read_config(folder) or {}
    check_family(config.get("model_type", "?"), name)
    if may_have_vision(config, ref.trust_remote_code):
        vlm = load_vlm(ref)
        return _inspect_vlm(vlm, ref, image or noise_image(150, 100), localize, picture)
    if image is not None or picture is not None or localize:
        raise UserError(
            f"{source} is a language model without vision: it cannot be shown an image. Leave "
            "`--image`, `--picture` and `--localize` out."
        )
    loaded = load_with_language_model(ref)
    model, checks = loaded.language_model, check_language_model(*loaded).checks
    size = _size(config.get("model_type", "?"), model.decoder, model)
    return _inspection(model, ref, size, None, checks, None, _text_cost(model))


def covered_share(boxes: NDArray[np.float32], width: int, height: int) -> float:
    """The exact share of an image that is in at least one of the boxes [T, 4]."""
    boxes = boxes[np.isfinite(boxes).all(axis=1)]
    clipped = np.clip(boxes.astype(np.float64), 0, [width, height, width, height])
    x, y = (
        np.unique(np.concatenate([[0, end], clipped[:, i], clipped[:, i + 2]])) for i, end in ((0, width), (1, height))
    )
    inside = np.zeros((len(y) - 1, len(x) - 1), bool)
    for x0, y0, x1, y1 in clipped:
        left, right = np.searchsorted(x, [x0, x1])
        top, bottom = np.searchsorted(y, [y0, y1])
        inside[top:bottom, left:right] = True
    return float(np.diff(y) @ inside @ np.diff(x)) / (width * height)


def token_layout(token_map: TokenMap, width: int, height: int) -> TokenLayout:
    """Summarize the map of an image of `width` x `height` pixels."""
    view = np.array(list(map(grid_view, token_map.view, token_map.tile)))
    names = [name for name in dict.fromkeys(view.tolist()) if name != "newline"]
    mapped = [token for token, name in enumerate(token_map.view) if name not in WITHOUT_PIXELS]
    ends = [[float(value) for value in token_map.boxes[mapped[end]]] if mapped else None for end in (0, -1)]
    return TokenLayout(
        width=width,
        height=height,
        tokens=len(view),
        views=[_view(name, token_map, view == name) for name in names],
        newlines=token_map.view.count("newline"),
        padding=token_map.view.count(PADDING),
        first_box=ends[0],
        last_box=ends[1],
        covered=covered_share(token_map.boxes, width, height),
    )


def _view(name: str, token_map: TokenMap, in_view: NDArray[np.bool_]) -> View:
    indices = (token_map.row, token_map.col, token_map.tile)
    rows, columns, tiles = (len(np.unique(index[in_view])) for index in indices)
    return View(name, int(in_view.sum()), tiles, rows, columns)


def _inspect_vlm(vlm: Vlm, ref: ModelRef, image: Image, localize: bool | None, picture: Path | None) -> Inspection:
    from latentlens_dag.models.self_checks import check_model
    from latentlens_dag.models.token_map_image import draw_token_map

    token_map = vlm.token_map(image.width, image.height) or unmapped(len(vlm.visual_states([image], [0]).tokens))
    if picture is not None:
        draw_token_map(image, token_map, picture)
    not_checked = _not_localized(vlm, localize)
    checks = check_model(vlm, localize=not_checked is None).checks
    not_checked = not_checked or next((check.not_checked for check in checks if check.not_checked), None)
    checks = [check for check in checks if check.not_checked is None]
    size = _size(vlm.model.config.model_type, vlm.model, vlm.language_model)
    layout = token_layout(token_map, image.width, image.height)
    cost = _image_cost(vlm, image, len(token_map.view))
    return _inspection(vlm.language_model, ref, size, layout, checks, not_checked, cost)


def _not_localized(vlm: Vlm, localize: bool | None) -> str | None:
    """Why `localization` is not run; None if it is."""
    if vlm.token_map(150, 100) is None:
        why = why_unmapped(vlm.model.config.model_type) or "nobody has written a region map of its family"
        return f"its visual tokens have no boxes that could be proved, since {why}"
    size_bytes = sum(p.numel() * p.element_size() for p in vlm.model.parameters())
    if localize is None and size_bytes > _LOCALIZED_BYTES:
        return f"the model takes {size_bytes / 1e9:.1f} GB, and the check some passes per view: `--localize` runs it"
    return "switched off" if localize is False else None


def _inspection(
    language_model: LanguageModel,
    ref: ModelRef,
    size: ModelSize,
    layout: TokenLayout | None,
    checks: list[ModelCheck],
    not_checked: str | None,
    cost: Cost,
) -> Inspection:
    from latentlens_dag.models.self_checks import failed_checks

    contextual, visual = auto_contextual_layers(size.blocks), auto_visual_layers(size.blocks)
    by_prefix = all(check.passed for check in checks if check.name in ("causality", "padding_invariance"))
    dedup: Dedup = "prefix" if by_prefix else "sentence"
    defs = _defs(_yaml_of_model(language_model.name, ref.trust_remote_code), contextual, visual, dedup, layout is None)
    return Inspection(
        source=language_model.name,
        revision=ref.revision,
        size=size,
        layout=layout,
        checks=checks,
        failed=failed_checks(checks, language_model),
        not_checked=not_checked,
        cost=cost,
        dedup=dedup,
        contextual_layers=contextual,
        visual_layers=visual,
        defs=defs,
    )


def _size(model_type: str, whole: Any, model: LanguageModel) -> ModelSize:
    weights = [*model.decoder.parameters(), *model.unembedding.parameters(), model.embedding]
    distinct = {id(weight): weight for weight in weights}.values()
    return ModelSize(
        model_type=model_type,
        model_class=type(whole).__name__,
        blocks=model.depth,
        width=model.width,
        vocabulary=len(model.embedding),
        parameters=sum(weight.numel() for weight in distinct),
        bytes_in_memory=sum(weight.numel() * weight.element_size() for weight in distinct),
        dtype=str(model.embedding.dtype).removeprefix("torch."),
        device=model.embedding.device.type,
    )


def _text_cost(model: LanguageModel) -> Cost:
    """The cost of one batch of texts up to the deepest automatic layer, as for an index."""
    import torch

    from latentlens_dag.models.hooks import capture_hidden_states, stop_at_layer

    ids = torch.arange(_TEXTS * _TEXT_TOKENS, device=model.embedding.device) % len(model.embedding)
    deepest = max(auto_contextual_layers(model.depth), default=0)

    def forward() -> None:
        select = lambda states: states.float().cpu()  # noqa: E731  (waits for the device)
        with (
            capture_hidden_states(model.decoder, [deepest], select),
            torch.inference_mode(),
            stop_at_layer(model.decoder, deepest),
        ):
            model.decoder(input_ids=ids.view(_TEXTS, _TEXT_TOKENS), use_cache=False)

    seconds = _seconds(forward)
    return Cost(seconds, len(ids) / seconds)


def _image_cost(vlm: Vlm, image: Image, tokens: int) -> Cost:
    layers = auto_visual_layers(vlm.depth)
    seconds = _seconds(lambda: vlm.visual_states([image], layers))
    row = vlm.language_model.width * 4 + _ROW_BYTES  # states are stored as float32
    return _text_cost(vlm.language_model)._replace(
        image_s=seconds, images_s=seconds * IMAGES, images_bytes=tokens * len(layers) * row * IMAGES
    )


def _seconds(work: Callable[[], object]) -> float:
    """The time of the second call; the first warms up."""
    work()
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _yaml_of_model(name: str, trusted: bool) -> str:
    """A model in a defs.yaml: its folder, or its repository on the Hub with the commit."""
    folder = Path(name)
    repo, _, commit = name.rpartition("@")
    path = json.dumps(str(folder.resolve()), ensure_ascii=False)
    fields = f"path: {path}" if folder.is_dir() else f"hub: {repo}, revision: {commit}"
    return f"{{{fields}, trust_remote_code: true}}" if trusted else f"{{{fields}}}"


def _defs(model: str, contextual: list[int], visual: list[int], dedup: str, of_texts: bool) -> str:
    """A defs.yaml with a study of the model and its layers, in the form of the README."""
    inputs, model_field, set_field = _TEXT_INPUTS if of_texts else _IMAGE_INPUTS
    return f"""\
type: latentlens_dag.dag.components.Corpus
attributes: {{name: my_text, source: {{lines: sentences.txt}}, shards: 8}}
---
type: latentlens_dag.dag.components.Index
attributes:
  name: my_index
  language_model: {model}
  corpus: my_text
  layers: {contextual}
  dedup: {dedup}
---
{inputs}
---
type: latentlens_dag.dag.components.Study
attributes:
  name: my_study
  {model_field}: {model}
  index: my_index
  {set_field}
  layers: {visual}
"""


_IMAGE_INPUTS = (
    """\
type: latentlens_dag.dag.components.ImageSet
attributes: {name: my_pictures, source: {folder: pictures}, batches: 4}""",
    "vlm",
    "images: my_pictures",
)
_TEXT_INPUTS = (
    """\
type: latentlens_dag.dag.components.TextSet
attributes: {name: my_texts, source: {lines: texts.txt}, batches: 1}""",
    "language_model",
    "texts: my_texts",
)
