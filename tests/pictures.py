"""Make the README's pictures of the demo anew: what `summary --picture` draws, and three pages of the browser.

    python -m tests.pictures [--home .latentlens] [--folder docs]

It needs a home with the demo (`make demo`) and Chromium. Look at what it wrote before you commit it. The pictures of
Dagster's graph are taken by hand.
"""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from PIL import Image
from playwright.sync_api import sync_playwright

from latentlens_dag.dataset.dataset import open_dataset
from latentlens_dag.figures.contact_sheet import draw_study, thumbnail_loader
from tests.dashboards.test_browser import CHROMIUM, FLAGS, served

if TYPE_CHECKING:
    from playwright.sync_api import Browser

STUDY = "demo"
COLORS = 256
SHEET_WIDTH = 1984
"""A fifth of it is a lens, of which the words can still be read."""


class View(NamedTuple):
    """A page of the browser, in pixels."""

    file: str
    address: str
    wait_for: str
    """A text that is there when all is drawn."""
    width: int
    height: int
    scheme: Literal["light", "dark"] = "light"


OWL = "study=demo&image={owl}"
VIEWS = (
    View("browser.png", f"?{OWL}&token=98", "EmbeddingLens (shared)", 1280, 945),
    View(
        "browser_words.png", "words?study=demo&category=shared:animal&layer=4", "most patches first", 1440, 640, "dark"
    ),
    View("browser_compare.png", f"compare?{OWL}&token1=98&lens2=embeddinglens", "Open B in Explore", 1280, 1120),
)


def main() -> None:
    """Write the pictures into a folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, default=Path(".latentlens"), help="a home with the demo")
    parser.add_argument("--folder", type=Path, default=Path("docs"), help="where to write them")
    options = parser.parse_args()
    _write(sheet(options.home), options.folder / "demo.png")
    with open_dataset(options.home) as data:
        owl = data.collect("SELECT image_id FROM images WHERE file_name = 'scene_007.webp'").item()
    with served(str(options.home)) as address, sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        for view in VIEWS:
            _write(screenshot(browser, address, view, owl), options.folder / view.file)
        browser.close()


def sheet(home: Path) -> Image.Image:
    """The picture of `latentlens-dag summary`, as wide as the README needs it."""
    with open_dataset(home) as data:
        drawn, _ = draw_study(data, STUDY, thumbnail_loader(data))
    return drawn.resize((SHEET_WIDTH, round(drawn.height * SHEET_WIDTH / drawn.width)), Image.Resampling.LANCZOS)


def screenshot(browser: Browser, address: str, view: View, owl: str) -> Image.Image:
    """A page, when nothing on it changes any more."""
    size = {"width": view.width, "height": view.height}
    page = browser.new_page(viewport=size, color_scheme=view.scheme)  # type: ignore[arg-type]
    page.goto(f"{address}/{view.address.format(owl=owl)}")
    page.get_by_text(view.wait_for).first.wait_for(timeout=60_000)
    before, now = b"", page.screenshot()
    while now != before:
        page.wait_for_timeout(1500)
        before, now = now, page.screenshot()
    page.close()
    return Image.open(io.BytesIO(now)).convert("RGB")


def _write(picture: Image.Image, file: Path) -> None:
    # Of the ways to choose colors, this one loses none that only a small part of the picture has, as a legend.
    small = picture.quantize(COLORS, Image.Quantize.MAXCOVERAGE, kmeans=1, dither=Image.Dither.NONE)
    small.save(file, optimize=True)
    sys.stdout.write(f"{file}: {picture.width} x {picture.height}, {file.stat().st_size // 1000} kB\n")


if __name__ == "__main__":
    main()
