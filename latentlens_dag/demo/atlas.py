"""The sprites of the demo world: one picture of all objects, so that no font is needed at run time.

`render_atlas` is for maintainers and needs a color emoji font; it draws every object into a square
cell of one WebP file, in the order of objects.csv, which is the atlas's only index. `load_atlas` reads
it back. Noto's bitmaps exist at one size (109 pixels per em, 136 x 128 pixels), so cells are larger
than any sprite in a scene and sprites are only ever scaled down.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from latentlens_dag.demo.world import World, WorldObject, world_folder
from latentlens_dag.inputs.images import FORMATS
from latentlens_dag.storage.files import atomic_path

if TYPE_CHECKING:
    from PIL import Image, ImageFont

CELL = 96
"""Side of a sprite's cell in pixels; the largest sprite in a scene is 80."""
COLUMNS = 12
FONT_SIZE = 109
"""The only size at which Noto Color Emoji has bitmaps."""
DEBIAN_FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
"""Where Debian's package fonts-noto-color-emoji puts the font."""


@dataclass(frozen=True)
class Atlas:
    """The sprites by object name: RGBA pictures of CELL x CELL pixels, trimmed and centered."""

    sprites: dict[str, Image.Image]


def load_atlas(world: World, path: Path | None = None) -> Atlas:
    """Cut the atlas at `path` (default: atlas.webp of the world's folder) into the sprites of `world`.

    Raises:
        ValueError: if the picture's size does not fit the number of objects.
    """
    from PIL import Image

    path = path or world_folder() / "atlas.webp"
    picture = Image.open(path, formats=FORMATS).convert("RGBA")
    if picture.size != _atlas_size(world):
        raise ValueError(
            f"{path} is {picture.size[0]} x {picture.size[1]} pixels, but {len(world.objects)} objects need "
            f"{_atlas_size(world)[0]} x {_atlas_size(world)[1]}: render it again (python -m latentlens_dag.demo atlas)."
        )
    return Atlas({item.name: picture.crop(_cell_box(index)) for index, item in enumerate(world.objects)})


def render_atlas(world: World, font: Path = DEBIAN_FONT) -> Image.Image:
    """Draw every object of `world` with the color emoji font `font`: RGBA, COLUMNS cells wide.

    Raises:
        FileNotFoundError: if there is no such font.
    """
    from PIL import Image, ImageFont

    if not font.exists():
        raise FileNotFoundError(f"No font at {font}. On Debian: apt install fonts-noto-color-emoji; or pass --font.")
    picture = Image.new("RGBA", _atlas_size(world))
    face = ImageFont.truetype(str(font), FONT_SIZE)
    for index, item in enumerate(world.objects):
        picture.paste(_render_sprite(item, face), _cell_box(index)[:2])
    return picture


def write_atlas(world: World, path: Path, font: Path = DEBIAN_FONT) -> None:
    """Render the atlas of `world` and write it to `path` as WebP with an exact alpha channel."""
    # Lossy colors at quality 92 halve the file; alpha stays lossless, and alpha alone decides the truth.
    with atomic_path(path) as partial:
        render_atlas(world, font).save(partial, format="WEBP", quality=92, method=6, alpha_quality=100)


def _render_sprite(item: WorldObject, face: ImageFont.FreeTypeFont) -> Image.Image:
    """One sprite, trimmed to its visible pixels, scaled to fill its cell and centered."""
    from PIL import Image, ImageDraw

    canvas = Image.new("RGBA", (2 * FONT_SIZE, 2 * FONT_SIZE))
    ImageDraw.Draw(canvas).text((16, 16), item.emoji, font=face, embedded_color=True)
    box = canvas.getchannel("A").getbbox()
    if box is None:
        raise ValueError(f"The font has no color picture for {item.emoji!r} ({item.name}): choose another emoji.")
    sprite = canvas.crop(box)
    sprite.thumbnail((CELL, CELL), Image.Resampling.LANCZOS)
    cell = Image.new("RGBA", (CELL, CELL))
    cell.paste(sprite, ((CELL - sprite.width) // 2, (CELL - sprite.height) // 2))
    return cell


def _atlas_size(world: World) -> tuple[int, int]:
    return COLUMNS * CELL, -(-len(world.objects) // COLUMNS) * CELL


def _cell_box(index: int) -> tuple[int, int, int, int]:
    left, top = index % COLUMNS * CELL, index // COLUMNS * CELL
    return left, top, left + CELL, top + CELL
