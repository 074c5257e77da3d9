"""What docs/examples says of the paper's off-the-shelf models follows from their published configs; no weights."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from PIL import Image

from latentlens_dag.models.families.registry import region_map
from latentlens_dag.models.inspection import token_layout
from latentlens_dag.models.layers import auto_contextual_layers
from latentlens_dag.models.loading import language_model_of
from latentlens_dag.models.processors import for_images_only
from latentlens_dag.testing.models import tiny_tokenizer

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
README = (EXAMPLES / "README.md").read_text(encoding="utf-8")
PUBLISHED = json.loads((Path(__file__).parent / "data" / "paper_models.json").read_text(encoding="utf-8"))
MODELS = [name for name in PUBLISHED if name != "source"]
SIZES = [(336, 336), (640, 480), (1024, 768), (768, 1024), (4000, 3000)]
MOLMO = {"Molmo-7B-D": 28, "Molmo-72B": 80}  # not of transformers: only its number of blocks is known here


@pytest.fixture(scope="module")
def published() -> Callable[[str], Any]:
    """A model of the published config on the meta device, and a processor of the published settings."""
    made: dict[str, Any] = {}

    def of(name: str) -> Any:
        if name not in made:
            made[name] = _published(name)
        return made[name]

    return of


def _published(name: str) -> Any:
    settings = PUBLISHED[name]
    config = transformers.CONFIG_MAPPING[settings["config"]["model_type"]].from_dict(settings["config"])
    with torch.device("meta"):
        model = transformers.AutoModelForImageTextToText.from_config(config)
    tokens = dict.fromkeys(re.findall(r"<.*?>", settings["image"]))
    tokenizer = tiny_tokenizer(image_tokens={_attribute(token): token for token in [*tokens, "<|video_pad|>"]})
    processor_class = getattr(transformers, settings["processor"]["class"])
    if "video_processor" in processor_class.get_attributes():
        processor_class = for_images_only(processor_class)
    image_processor = getattr(transformers, settings["image_processor"]["class"])
    processor = processor_class(
        image_processor=image_processor(**settings["image_processor"]["settings"]),
        tokenizer=tokenizer,
        **settings["processor"]["settings"],
    )
    return SimpleNamespace(name=name, model=model, processor=processor, image=settings["image"])


def _attribute(token: str) -> str:
    names = {"<image>": "image_token", "<|image_pad|>": "image_token", "<|video_pad|>": "video_token"}
    return names.get(token, f"{token.strip('<|>')}_token")


def _layout(one: Any, width: int, height: int) -> Any:
    map_of = region_map(one.model.config.model_type, one.name)
    assert map_of is not None
    return token_layout(map_of(one.processor, one.model.config, width, height), width, height)


def _inputs(one: Any, size: tuple[int, int]) -> Any:
    return one.processor(images=[[Image.new("RGB", size)]], text=[f"See {one.image} here."], return_tensors="pt")


def _feature_shape(one: Any, inputs: Any) -> tuple[int, ...]:
    """The shape of the connector's output, on the meta device; of Qwen's, the merger gets as many rows as patches."""
    pixels = inputs["pixel_values"].to("meta")
    with torch.inference_mode():
        if "image_grid_thw" in inputs:
            vision = one.model.config.vision_config
            patches = torch.empty(len(pixels), getattr(vision, "embed_dim", vision.hidden_size), device="meta")
            return tuple(one.model.model.visual.merger(patches).shape)
        sizes = {"image_sizes": inputs["image_sizes"]} if "image_sizes" in inputs else {}
        (features,) = one.model.model.get_image_features(pixel_values=pixels, **sizes).pooler_output
    return tuple(features.shape)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", MODELS)
def test_boxes_image_tokens_and_features_are_equally_many(
    published: Callable[[str], Any], name: str, size: tuple[int, int]
) -> None:
    one = published(name)
    inputs, layout = _inputs(one, size), _layout(one, *size)
    positions = (inputs["input_ids"][0] == one.processor.tokenizer.image_token_id).nonzero().flatten()
    assert layout.tokens == len(positions)
    assert positions.tolist() == list(range(int(positions[0]), int(positions[0]) + layout.tokens))
    width = one.model.config.get_text_config().hidden_size
    assert _feature_shape(one, inputs) == (layout.tokens, width)


def test_the_visual_tokens_of_each_model_are_those_of_the_readme(published: Callable[[str], Any]) -> None:
    expected = [f"| image | {' | '.join(f'`{name}`' for name in MODELS)} |"]
    for width, height in SIZES:
        cells = [_cell(_layout(published(name), width, height)) for name in MODELS]
        expected.append(f"| {width} x {height} | {' | '.join(cells)} |")
    table = README.partition("## Visual tokens")[2]
    assert [line for line in table.splitlines() if line.startswith("| ")][: len(expected)] == expected


def _cell(layout: Any) -> str:
    """The tokens and grids of an image, and the first of the boxes, width by height in pixels of the image."""
    views = {view.name: f"{view.rows} x {view.columns}" for view in layout.views}
    grids = [views["global"], *([f"{views['tile']} + {layout.newlines} newlines"] if "tile" in views else [])]
    x0, y0, x1, y1 = layout.first_box
    covered = "" if layout.covered > 0.999 else f", {layout.covered:.0%} of the image"
    return f"{layout.tokens:,}: {' + '.join(grids)}; {x1 - x0:.0f} x {y1 - y0:.0f} px{covered}"


def test_blocks_widths_and_layers_are_those_of_the_readme(published: Callable[[str], Any]) -> None:
    rows = {}
    for name in MODELS:
        one = published(name)
        model = language_model_of(name, one.model, one.processor.tokenizer)
        rows[f"`{name}`"] = [str(model.depth), f"{model.width:,}", _layers(model.depth)]
    rows |= {name: [str(depth), "", _layers(depth)] for name, depth in MOLMO.items()}
    documented = dict.fromkeys(rows, None)
    for line in README.partition("## Layers")[2].splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells[0] in rows:
            documented[cells[0]] = cells[1:]
    assert documented == rows


def _layers(depth: int) -> str:
    return ", ".join(map(str, auto_contextual_layers(depth)))


@pytest.mark.parametrize("name", MODELS)
def test_each_example_names_the_model_and_the_gigabytes_of_its_weights(
    published: Callable[[str], Any], name: str
) -> None:
    text = (EXAMPLES / name / "defs.yaml").read_text(encoding="utf-8")
    size_bytes = 2 * sum(parameter.numel() for parameter in published(name).model.parameters())
    assert int(re.findall(r"About (\d+) GB of weights, in 16 bits", text)[0]) == round(size_bytes / 1e9)
    assert f"hf download {PUBLISHED[name]['repository']} " in text
    assert f"| `{name}` | {PUBLISHED[name]['repository']} |" in README
