"""Scenes of the demo world: drawn from a seed, composed to pixels, and exactly true.

A scene is two textured backgrounds that meet at a horizon and a few sprites on them. Composing
it gives the picture and, from the sprites' own alpha (at least one half), which region every pixel
shows; nothing is annotated by hand and nothing is guessed by a model. Region 0 is the upper
background, 1 the lower, 2 and up are the objects, drawn back to front.

What a caption may speak of is a `View`: of the whole scene, or of the patches that are kept when
visual tokens are dropped. A region is visible in a view when it covers most of at least one kept
patch; the vision encoder's patch labels follow the same rule.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from latentlens_dag.demo.atlas import Atlas, load_atlas
from latentlens_dag.demo.backdrops import PIXELS, backdrop
from latentlens_dag.demo.colors import color_shares, color_words, dominant_color
from latentlens_dag.demo.world import World, load_world
from latentlens_dag.inputs.regions import encode_mask
from latentlens_dag.storage.files import atomic_path

if TYPE_CHECKING:
    import pyarrow as pa

PATCH = 16
GRID = PIXELS // PATCH
PATCHES = GRID * GRID
"""144 patches of 16 x 16 pixels in 12 rows, row-major, as the vision encoder orders them."""
LARGE = 64
"""Sprites of at least this many pixels are called large."""
STAGE_SEEDS = {"vision": 0, "connector": 4_000_000}
"""First scene seed of each stage of training; each has 4,000,000."""
HELD_OUT_FROM = 8_000_000
"""First scene seed of the gates' scenes: no training reaches it."""
CHOICE_FROM = 8_500_000
"""First scene seed of the scenes on which settings and the shipped connector were chosen."""
FRESH_FROM = 8_700_000
"""First scene seed of the scenes that the finished model is measured on: no training, gate or choice has met them."""
DEMO_SEED = 9_000_000
"""First scene seed the shipped pictures are chosen from."""
DEMO_SCENES = 64


@dataclass(frozen=True)
class PlacedObject:
    """A sprite in a scene: its square of `size` x `size` pixels at `left`, `top`."""

    name: str
    left: int
    top: int
    size: int
    flipped: bool


@dataclass(frozen=True)
class Scene:
    """Everything that determines a picture; `horizon` is the pixel row where `lower` starts."""

    seed: int
    upper: str
    lower: str
    horizon: int
    objects: tuple[PlacedObject, ...]
    """Drawn back to front."""

    @property
    def names(self) -> tuple[str, ...]:
        """Name of each region: upper, lower, then the objects."""
        return (self.upper, self.lower, *(item.name for item in self.objects))


@dataclass(frozen=True)
class RenderedScene:
    """The pixels of a scene, and the region of each."""

    image: Image.Image
    """RGB, PIXELS x PIXELS."""
    labels: npt.NDArray[np.uint8]
    """[PIXELS, PIXELS]: index of the region each pixel shows."""


@dataclass(frozen=True)
class VisibleObject:
    """One visible object, with what a caption may say of it."""

    name: str
    color: str
    """The most common color word of its visible pixels."""
    size: Literal["small", "large"]
    column: Literal["left", "center", "right"]
    row: Literal["top", "middle", "bottom"]


@dataclass(frozen=True)
class View:
    """What is visible in a whole scene, or in the patches that are kept."""

    upper: str | None
    lower: str | None
    objects: tuple[VisibleObject, ...]


@dataclass(frozen=True)
class Truth:
    """What is needed to derive views of one scene; small enough to keep for thousands of scenes."""

    upper: str
    lower: str
    objects: tuple[VisibleObject, ...]
    patch_regions: npt.NDArray[np.uint8]
    """[PATCHES]: index of the region that covers most of each patch."""


@dataclass(frozen=True)
class Region:
    """One row of regions.parquet: what a judge needs to know about one region of one picture."""

    file_name: str
    region_id: str
    kind: Literal["object", "background"]
    name: str
    words: tuple[str, ...]
    """Concrete: name, synonyms, category, parts and the measured color words."""
    abstract_words: tuple[str, ...]
    box: tuple[float, float, float, float]
    """x0, y0, x1, y1 in pixels, around the visible pixels."""
    mask: tuple[int, ...]
    """Run lengths in row-major order, alternating, first the pixels that are not in the region."""


def random_scene(world: World, seed: int, min_objects: int = 1, max_objects: int = 4) -> Scene:
    """Draw the scene of `seed`: the same seed and bounds give the same scene.

    Objects are distinct and lie over each other as little as space allows. Scenes of five and more
    have smaller sprites.
    """
    rng = np.random.default_rng(seed)
    upper, lower = rng.choice([item.name for item in world.upper]), rng.choice([item.name for item in world.lower])
    count = int(rng.integers(min_objects, max_objects + 1))
    placed: list[PlacedObject] = []
    for name in rng.choice([item.name for item in world.objects], count, replace=False):
        placed.append(_place(str(name), placed, (46, 81) if count <= 4 else (38, 65), rng))
    return Scene(seed, str(upper), str(lower), int(rng.integers(72, 121)), tuple(placed))


def render_scene(world: World, atlas: Atlas, scene: Scene) -> RenderedScene:
    """Draw `scene`: its picture and the region of every pixel."""
    rng = np.random.default_rng((scene.seed, 1))
    pixels = backdrop(scene.upper, rng)
    pixels[scene.horizon :] = backdrop(scene.lower, rng)[scene.horizon :]
    labels = np.zeros((PIXELS, PIXELS), np.uint8)
    labels[scene.horizon :] = 1
    image = Image.fromarray(pixels)
    for region, item in enumerate(scene.objects, start=2):
        sprite = _sprite(atlas, item)
        image.paste(sprite, (item.left, item.top), sprite)
        solid = np.asarray(sprite.getchannel("A")) >= 128
        labels[item.top : item.top + item.size, item.left : item.left + item.size][solid] = region
    return RenderedScene(image, labels)


def visible_patches(labels: npt.NDArray[np.uint8], regions: int, patch: int = PATCH) -> npt.NDArray[np.float32]:
    """Fraction of each patch that each region covers: float32 [patches, regions], rows sum to 1."""
    rows, columns = labels.shape[0] // patch, labels.shape[1] // patch
    tiles = labels.reshape(rows, patch, columns, patch).swapaxes(1, 2).reshape(rows * columns, -1)
    counts = [(tiles == region).mean(axis=1) for region in range(regions)]
    return np.stack(counts, axis=1).astype(np.float32)


def patch_regions(labels: npt.NDArray[np.uint8], regions: int) -> npt.NDArray[np.uint8]:
    """Index of the region that covers most of each patch: uint8 [PATCHES]; the lower index on a tie."""
    return visible_patches(labels, regions).argmax(axis=1).astype(np.uint8)


def scene_truth(rendered: RenderedScene, scene: Scene) -> Truth:
    """The truth of `scene`, after which its picture need not be kept."""
    pixels = np.asarray(rendered.image)
    seen = []
    for region, item in enumerate(scene.objects, start=2):
        visible = pixels[rendered.labels == region]
        color = dominant_color(color_shares(visible)) if len(visible) else "gray"
        seen.append(_visible_object(item, color))
    return Truth(scene.upper, scene.lower, tuple(seen), patch_regions(rendered.labels, len(scene.names)))


def visible_view(truth: Truth, kept: npt.NDArray[np.bool_] | None = None) -> View:
    """What is visible in the `kept` patches (bool [PATCHES]; None keeps all).

    A region counts when it covers most of at least one kept patch. Objects come in the order of their first
    kept patches, row by row: the order in which a language model that reads the patches meets them.
    """
    regions = truth.patch_regions if kept is None else truth.patch_regions[kept]
    visible = dict.fromkeys(regions.tolist())
    objects = tuple(truth.objects[region - 2] for region in visible if region >= 2)
    return View(truth.upper if 0 in visible else None, truth.lower if 1 in visible else None, objects)


def scene_regions(world: World, rendered: RenderedScene, scene: Scene, file_name: str = "") -> list[Region]:
    """The regions of `scene` that have visible pixels, in the order of their index."""
    pixels = np.asarray(rendered.image)
    rows = []
    for region, name in enumerate(scene.names):
        mask = rendered.labels == region
        if mask.any():
            item = world.item(name)
            words = tuple(dict.fromkeys((*item.concrete_words, *color_words(color_shares(pixels[mask])))))
            abstract = tuple(word for word in item.abstract_words if word not in words)
            kind: Literal["object", "background"] = "object" if region >= 2 else "background"
            runs = tuple(encode_mask(mask))
            rows.append(Region(file_name, str(region), kind, name, words, abstract, _box(mask), runs))
    return rows


def regions_table(regions: list[Region]) -> pa.Table:
    """`regions` as the table of regions.parquet."""
    import pyarrow as pa

    corners = ("x0", "y0", "x1", "y1")
    types = dict.fromkeys(("file_name", "region_id", "kind", "name"), pa.string())
    types |= dict.fromkeys(("words", "abstract_words"), pa.list_(pa.string()))
    types |= dict.fromkeys(corners, pa.float32()) | {"mask": pa.list_(pa.int32())}
    rows = [vars(region) | dict(zip(corners, region.box, strict=True)) for region in regions]
    return pa.Table.from_pylist(rows, pa.schema(types))


def demo_scenes(world: World, count: int = DEMO_SCENES, candidates: int = 60) -> list[Scene]:
    """The held-out scenes of the demo, with one to four objects in turn.

    Each is the one of `candidates` seeds that repeats the fewest objects of earlier scenes, with a pair of
    backgrounds not seen before if there is one, so that a few dozen pictures show most of the world.
    """
    chosen: list[Scene] = []
    objects: set[str] = set()
    pairs: set[tuple[str, str]] = set()
    for number in range(count):
        size = 1 + number % 4
        first = DEMO_SEED + number * candidates
        drawn = [random_scene(world, seed, size, size) for seed in range(first, first + candidates)]
        best = min(drawn, key=lambda scene: ((scene.upper, scene.lower) in pairs, len(objects & set(scene.names[2:]))))
        chosen.append(best)
        objects |= set(best.names[2:])
        pairs.add((best.upper, best.lower))
    return chosen


def write_scenes(world: World, atlas: Atlas, folder: Path, scenes: Sequence[Scene]) -> int:
    """Write `folder`/scenes/scene_000.webp ... (lossless) and `folder`/regions.parquet; gives the number of regions.

    The same world and scenes give the same bytes.
    """
    import pyarrow.parquet as pq

    (folder / "scenes").mkdir(parents=True, exist_ok=True)
    regions: list[Region] = []
    for index, scene in enumerate(scenes):
        rendered = render_scene(world, atlas, scene)
        file_name = f"scene_{index:03d}.webp"
        rendered.image.save(folder / "scenes" / file_name, format="WEBP", lossless=True, quality=75, method=3)
        regions += scene_regions(world, rendered, scene, file_name)
    with atomic_path(folder / "regions.parquet") as partial:
        pq.write_table(regions_table(regions), partial, compression="zstd")
    return len(regions)


def training_seed(stage: str, seed: int, index: int) -> int:
    """Scene seed number `index` of the training of `stage` with `seed`; never a held-out one."""
    return STAGE_SEEDS[stage] + (seed * 100_000 + index) % 4_000_000


@dataclass(frozen=True)
class SceneSource:
    """Scenes by seed, with the world and the atlas they are drawn from."""

    world: World
    atlas: Atlas

    @classmethod
    def open(cls) -> SceneSource:
        """The world and the atlas of assets/demo/world of the checkout."""
        world = load_world()
        return cls(world, load_atlas(world))

    def __call__(self, seed: int, min_objects: int = 1, max_objects: int = 4) -> tuple[Scene, RenderedScene]:
        """The scene of `seed` and its pixels."""
        scene = random_scene(self.world, seed, min_objects, max_objects)
        return scene, render_scene(self.world, self.atlas, scene)


def _place(
    name: str, placed: list[PlacedObject], sizes: tuple[int, int], rng: np.random.Generator, tries: int = 40
) -> PlacedObject:
    """A random place for `name`; the share of an object that may be covered grows with every try."""
    for attempt in range(tries):
        size = int(rng.integers(*sizes))
        left, top = (int(at) for at in rng.integers(0, PIXELS - size + 1, 2))
        item = PlacedObject(name, left, top, size, bool(rng.integers(2)))
        if all(_overlap(item, other) <= 0.01 * attempt for other in placed):
            break
    return item


def _overlap(a: PlacedObject, b: PlacedObject) -> float:
    """Area that two squares share, as a fraction of the smaller."""
    width = min(a.left + a.size, b.left + b.size) - max(a.left, b.left)
    height = min(a.top + a.size, b.top + b.size) - max(a.top, b.top)
    return max(0, width) * max(0, height) / min(a.size, b.size) ** 2


def _sprite(atlas: Atlas, item: PlacedObject) -> Image.Image:
    sprite = atlas.sprites[item.name].resize((item.size, item.size), Image.Resampling.BICUBIC)
    return ImageOps.mirror(sprite) if item.flipped else sprite


def _visible_object(item: PlacedObject, color: str) -> VisibleObject:
    across, down = (int((start + item.size / 2) * 3 // PIXELS) for start in (item.left, item.top))
    column, row = ("left", "center", "right")[across], ("top", "middle", "bottom")[down]
    size = "large" if item.size >= LARGE else "small"
    return VisibleObject(item.name, color, size, column, row)  # type: ignore[arg-type]


def _box(mask: npt.NDArray[np.bool_]) -> tuple[float, float, float, float]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)
