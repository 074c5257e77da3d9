"""A home of studies whose tokens lie in every way that families of VLMs have, with answers drawn at random.

The places are those of the region maps. Run as a script to look at it: `python -m tests.dashboards.shaped_home FOLDER`.
"""

from __future__ import annotations

import io
import random
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
from PIL import Image, ImageDraw

from latentlens_dag.dataset.study_catalog import write_catalog
from latentlens_dag.models.families import deepseek_vl, gemma3, idefics3, llava_next, qwen_vl
from latentlens_dag.models.families.token_map import TokenMap, mark_padding, unmapped
from latentlens_dag.schema import DECLARED_LENSES, IMAGES, NEIGHBORS, SENTENCES, TEXT_TOKENS, TEXTS, VISUAL_TOKENS
from latentlens_dag.storage.files import write_json
from latentlens_dag.storage.hashing import hash_bytes, text_id
from latentlens_dag.storage.parquet import write_parquet
from latentlens_dag.storage.warehouse import Warehouse

WORDS = ("dog", "bookshelf", "sky", "grass", "electroencephalography", "شجرة", "👩‍👩‍👧", "lake", "red", "a", "")
TEXT = (
    "A brown dog sleeps on the warm carpet near the door .",
    "The bank of the river\nand <b>the</b> bank for شجرة money 👩‍👩‍👧 are \x07 not the same " * 6,
)
LAYERS = (0, 2, 4)
SIDE, PATCH = 336, 14  # of a tile, and a patch, in pixels


def _llava_next(cells: int) -> Callable[[int, int], TokenMap]:
    side = cells * PATCH
    pinpoints = [[side, 2 * side], [2 * side, side], [2 * side, 2 * side], [3 * side, side], [side, 3 * side]]
    processor = SimpleNamespace(size={"shortest_edge": side}, crop_size=None, image_grid_pinpoints=pinpoints)
    config = SimpleNamespace(vision_config=SimpleNamespace(patch_size=PATCH))
    return lambda *size: llava_next.region_map(SimpleNamespace(image_processor=processor), config, *size)


def _qwen() -> Callable[[int, int], TokenMap]:
    size = {"shortest_edge": 56 * 56, "longest_edge": 28 * 28 * 300}
    processor = SimpleNamespace(patch_size=14, merge_size=2, do_resize=True, size=size)
    config = SimpleNamespace(model_type="qwen2_vl")
    return lambda *size: qwen_vl.region_map(SimpleNamespace(image_processor=processor), config, *size)


def _gemma() -> Callable[[int, int], TokenMap]:
    told = dict(zip(gemma3._CROPS, (True, 100, 4, 1.2), strict=True))
    config = SimpleNamespace(mm_tokens_per_image=64, vision_config=SimpleNamespace(image_size=896, patch_size=14))
    return lambda *size: gemma3.region_map(SimpleNamespace(images_kwargs=told), config, *size)


def _idefics() -> Callable[[int, int], TokenMap]:
    image = SimpleNamespace(max_image_size={"longest_edge": 140}, size={"longest_edge": 420})
    image.do_resize = image.do_image_splitting = True
    config = SimpleNamespace(vision_config=SimpleNamespace(patch_size=7), scale_factor=4)
    processor = SimpleNamespace(image_processor=image)
    return lambda *size: idefics3.region_map(processor, config, *size)


def _deepseek() -> Callable[[int, int], TokenMap]:
    processor = SimpleNamespace(image_processor=SimpleNamespace(size={"height": 384}, min_size=14))
    config = SimpleNamespace(vision_config=SimpleNamespace(patch_size=32))
    return lambda *size: mark_padding(deepseek_vl.region_map(processor, config, *size), *size)


MAPS: dict[str, Callable[[int, int], TokenMap]] = {
    "crops": _gemma(),
    "nowhere": lambda *size: unmapped(40),
    "padded": _deepseek(),
    "qwen": _qwen(),
    "tiles": _llava_next(6),
    "tiles_last": _idefics(),
}
SIZES = {"wide.png": (640, 240), "tall.png": (220, 660), "square.png": (320, 320), "thin.png": (1200, 90)}


def image_id(name: str) -> str:
    return hash_bytes(name.encode())


def _picture(width: int, height: int) -> bytes:
    """A picture in which one sees where one is: bands, and circles that squashing would make ellipses."""
    image = Image.new("RGB", (width, height), "#87b5d9")
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, height * 0.6, width, height), fill="#5b8c3e")
    for number, x in enumerate(range(20, width, 90)):
        draw.ellipse((x, height * 0.3, x + 50, height * 0.3 + 50), fill=("#d9534f", "#f0c24b", "#7a5ba8")[number % 3])
    image.thumbnail((256, 256))
    file = io.BytesIO()
    image.save(file, "webp")
    return file.getvalue()


def _images() -> pa.Table:
    rows = [(image_id(name), name, *size, _picture(*size)) for name, size in SIZES.items()]
    return pa.Table.from_pylist([dict(zip(IMAGES.names, row, strict=True)) for row in rows], schema=IMAGES)


def _tokens(study: str, places: Callable[[int, int], TokenMap]) -> pa.Table:
    rows: list[dict[str, Any]] = []
    for name, size in SIZES.items():
        found = places(*size)
        for token, box in enumerate(found.boxes.tolist()):
            sides = [None if side != side else side for side in box]  # NaN
            where = [int(part[token]) for part in (found.tile, found.row, found.col)]
            values = (study, image_id(name), token, found.view[token], *where, *sides)
            rows.append(dict(zip(VISUAL_TOKENS.names, values, strict=True)))
    return pa.Table.from_pylist(rows, schema=VISUAL_TOKENS)


def _answers(study: str, tokens: Sequence[tuple[str, int]], lens: str, layer: int) -> pa.Table:
    draw, rows = random.Random(f"{study} {lens} {layer}"), []
    for image, token in tokens:
        top = draw.uniform(0.2, 0.9)
        for rank in (1, 2, 3, 4, 5):
            word, number = draw.choice(WORDS), top - rank / 40
            row = dict.fromkeys(NEIGHBORS.names) | {"study": study, "image_id": image, "token_index": token}
            row |= {"visual_layer": layer, "lens": lens, "rank": rank, "word": word, "token_str": word}
            row |= {"logit": 20 * number} if lens == "logitlens" else {"cosine": number}
            if lens == "latentlens":
                row |= {"contextual_layer": draw.choice((1, 2, 4, 8)), "sentence_id": text_id(_sentence(word))}
                row |= {"char_start": 4, "char_end": 4 + len(word)}
            rows.append(row)
    return pa.Table.from_pylist(rows, schema=NEIGHBORS)


def _sentence(word: str) -> str:
    return f"The {word} is near a house, and nobody has said yet why it should be anywhere else."


def _write_study(house: Warehouse, study: str, tokens: pa.Table) -> None:
    write_parquet(tokens, house.visual_tokens(study, 0), VISUAL_TOKENS)
    pairs = list(zip(tokens["image_id"].to_pylist(), tokens["token_index"].to_pylist(), strict=True))
    for lens in DECLARED_LENSES:
        for layer in LAYERS:
            write_parquet(_answers(study, pairs, lens, layer), house.neighbors(study, lens, layer, 0), NEIGHBORS)


def _write_texts(house: Warehouse) -> None:
    texts = pa.table({"text_id": [text_id(text) for text in TEXT], "text": TEXT})
    write_parquet(texts, house.texts("sayings", 0), TEXTS)
    rows, places = [], []
    for text in TEXT:
        start = 0
        for token, piece in enumerate(text.split(" ")):
            values = ("texts", text_id(text), token, token, 7, f" {piece}", piece, start, start + len(piece))
            rows.append(dict(zip(TEXT_TOKENS.names, values, strict=True)))
            place = ("texts", text_id(text), token, "text", *[None] * 7)
            places.append(dict(zip(VISUAL_TOKENS.names, place, strict=True)))
            start += len(piece) + 1
    file = house.text_tokens("texts", 0)
    write_parquet(pa.Table.from_pylist(rows, schema=TEXT_TOKENS), file, TEXT_TOKENS)
    _write_study(house, "texts", pa.Table.from_pylist(places, schema=VISUAL_TOKENS))
    write_json(
        {"parts": 1, "visual_layers": list(LAYERS), "lenses": sorted(DECLARED_LENSES), "of": "texts"},
        house.shape("study", "texts"),
    )


def write_shaped_home(root: Path, **more: Callable[[int, int], TokenMap]) -> Path:
    """Write the home; `more` studies by their maps."""
    house = Warehouse(root / "warehouse")
    write_parquet(_images(), house.pictures("pictures", 0), IMAGES)
    sentences = [_sentence(word) for word in WORDS]
    table = pa.table({"sentence_id": [text_id(one) for one in sentences], "text": sentences})
    write_parquet(table, house.sentences("corpus"), SENTENCES)
    for study, places in (MAPS | more).items():
        _write_study(house, study, _tokens(study, places))
    _write_texts(house)
    for study in (*MAPS, *more, "texts"):
        write_catalog(house, study, house.catalog(study))
    return root


if __name__ == "__main__":
    write_shaped_home(Path(sys.argv[1]), tiles_of_336=_llava_next(24))
