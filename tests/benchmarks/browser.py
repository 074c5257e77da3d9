"""How long the browser takes, in a real Chromium: until its first view, from a click to the neighbors, for a word.

    python -m tests.benchmarks.browser [--home HOME | --large] [--folder .latentlens/bench/browser] [--clicks 60]

By default it opens the home of this folder (`make demo`); `--home` names another one, or anything else that
`latentlens-dag browse` opens, and `--large` a release of the paper's size, which is written into FOLDER once (minutes,
2 GB). Server and Chromium share two cores. All times are taken inside the page: from the browser's own time of the
click, key or navigation until what was asked for is in the document. Every word is asked for once, so none is
remembered; `memory` is the largest sum of resident memory over the server's processes, `cpu` the processor's time of
all of them, which other work on the machine changes little. A release is opened as for the first time, so everything is
measured while its catalog is being made, too, and again when it is there.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from latentlens_dag.dataset.dataset import open_dataset
from tests.benchmarks.browser_study import written

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CORES = 2
FIRST_VIEWS, PLACES, WORDS = 5, 10, 8
BARS = {"first_view": 3000, "click_median": 250, "click_p95": 500, "word_search_worst": 1000, "memory_mb": 1500}
"""In ms, and MB of 10^6 bytes."""
_MAIN = "from latentlens_dag.cli.main import main; main()"
_FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
# When each of CONDITIONS first holds: in ms from the event EVENT, or from the navigation where there is none.
_WATCH = """([event, conditions]) => {
  const holds = conditions.map((text) => new Function("return " + text));
  window.watched = new Promise((resolve, reject) => {
    const found = conditions.map(() => null);
    let start = event ? null : 0;
    setTimeout(() => reject(`Waited for a minute: ${conditions}`), 60000);
    if (event) addEventListener(event, (one) => { start = one.timeStamp; }, { capture: true, once: true });
    const look = () => {
      const now = performance.now() - start;
      if (start !== null) holds.forEach((one, at) => { if (!found[at] && one()) found[at] = now; });
      if (found.every(Boolean)) resolve(found); else requestAnimationFrame(look);
    };
    look();
  });
}"""
_PICTURES = """[...document.querySelectorAll("*")].some((one) => one.shadowRoot?.querySelector(".tiles button svg"))"""
_CURVES = """document.querySelector("[data-testid='stVegaLiteChart'] :is(canvas, svg)")"""
_ENDLESS = "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT 1 - n FROM r) SELECT count(*) FROM r"
_HUGE = (
    "SELECT len(repeat('x', 1500000000))",
    "SELECT max(n) FROM (SELECT row_number() OVER (ORDER BY hash(range)) AS n FROM range(1000000000))",
)
_PAUSE_MS = 400
_DONE = "[data-test-script-state='notRunning']"


def main() -> None:
    """Open the server and Chromium, and print what was measured beside its bar."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--home", default=".latentlens")
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--folder", type=Path, default=Path(".latentlens/bench/browser"))
    parser.add_argument("--clicks", type=int, default=60)
    given = parser.parse_args()
    source = str(written(given.folder) if given.large else given.home)
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    load = os.getloadavg()[0]
    found = {"source": source, "load": [load], **measured(source, given.clicks)}
    found["load"].append(os.getloadavg()[0])
    sys.stdout.write(json.dumps(found, indent=1) + "\n")
    for name, bar in BARS.items():
        sys.stdout.write(f"{name:20} {found[name]:8.0f}  bar {bar}  {'ok' if found[name] < bar else 'MISSED'}\n")


def measured(source: str, clicks: int) -> dict[str, Any]:
    """All that is measured of one source, in ms and MB."""
    from playwright.sync_api import sync_playwright

    places, words = _chosen(source)
    with (
        tempfile.TemporaryDirectory() as cache,
        _served(source, cache) as server,
        sync_playwright() as play,
        _memory(server.process) as memory,
    ):
        chromium = play.chromium.launch(executable_path=shutil.which("chromium"), args=_FLAGS)
        found: dict[str, Any] = {"server_start": server.start_ms}
        if Path(source, "manifest.json").is_file():
            found["before_its_catalog"] = _looked(chromium, server, places[:3], words[WORDS:], 9)
            found["catalog_s"] = _until_made(Path(cache))
        found |= _looked(chromium, server, places, words[:WORDS], clicks)
        found |= _compared(chromium, server, places)
        found |= _beside_runaway(chromium, server, places[0])
        chromium.close()
    return {**found, "memory_mb": memory.most / 1e6, "memory_parts_mb": [part / 1e6 for part in memory.parts]}


def _looked(
    chromium: Browser, server: Server, places: list[dict[str, Any]], words: list[str], clicks: int
) -> dict[str, Any]:
    """First views, clicks and words."""
    first = [_first_view(chromium, server) for _ in range(1 + FIRST_VIEWS)]
    page = _new_page(chromium)
    clicked = [one for place in places for one in _clicks(page, server, place, -(-clicks // len(places)))]
    searched = {word: _search(page, server, places[0], word) for word in words}
    page.context.close()
    click_ms, word_ms = [one.ms[0] for one in clicked], [one.ms[0] for one in searched.values()]
    return {
        "first_view_cold": first[0],
        "first_view": statistics.median(first[1:]),
        "first_view_worst": max(first[1:]),
        "clicks": len(clicked),
        "click_median": statistics.median(click_ms),
        "click_p95": statistics.quantiles(click_ms, n=20)[-1],
        "click_worst": max(click_ms),
        "click_cpu": statistics.median(one.cpu_ms for one in clicked),
        "words": {word: [*one.ms, one.cpu_ms] for word, one in searched.items()},
        "word_search_median": statistics.median(word_ms),
        "word_search_worst": max(word_ms),
        "word_page_worst": max(one.ms[1] for one in searched.values()),
        "word_cpu_worst": max(one.cpu_ms for one in searched.values()),
    }


def _compared(chromium: Browser, server: Server, places: list[dict[str, Any]]) -> dict[str, Any]:
    """From navigation to the ranked gallery of two lenses at a layer that nobody has asked for yet."""
    shown = {}
    for layer, study in {place["layer"]: place["study"] for place in places}.items():
        page = _new_page(chromium)
        page.goto(f"{server.address}/compare?study1={study}&layer1={layer}&layer2={layer}", wait_until="commit")
        (shown[layer],) = _watched(page, server, None, [_PICTURES]).ms
        page.context.close()
    return {"compare": shown, "compare_median": statistics.median(shown.values()), "compare_worst": max(shown.values())}


def _beside_runaway(chromium: Browser, server: Server, place: dict[str, Any]) -> dict[str, float]:
    """Clicks of one person while another one's SQL runs away: first in time, then in memory."""
    page, other = _new_page(chromium), _new_page(chromium)
    _clicks(page, server, place, 1)
    other.goto(f"{server.address}/sql?sql={_ENDLESS}")
    other.wait_for_selector("[data-test-script-state='running']")
    clicked = [one.ms[0] for one in _clicks(page, server, place, 8)]
    other.get_by_text("The query was stopped after").wait_for()
    for sql in _HUGE:
        other.goto(f"{server.address}/sql?sql={sql}")
        other.get_by_text("The query was stopped").wait_for()
    return {"click_beside_runaway_median": statistics.median(clicked), "click_beside_runaway_worst": max(clicked)}


def _new_page(chromium: Browser) -> Page:
    page = chromium.new_context(viewport={"width": 1280, "height": 900}).new_page()
    page.set_default_timeout(120_000)
    return page


def _until_made(cache: Path) -> float:
    """Wait for the catalog of a release; the seconds that making it took."""
    while not (made := list(cache.rglob("*.duckdb"))):
        time.sleep(0.2)
    time.sleep(3)  # within which an open page looks for it
    return made[0].stat().st_mtime - cache.stat().st_ctime


def _chosen(source: str) -> tuple[list[dict[str, Any]], list[str]]:
    """Images, layers and lenses to click on; WORDS words from frequent to rare, and then three others."""
    draw = random.Random(0)
    with open_dataset(source) as dataset:
        studies = [row for row in dataset.collect("studies").to_dicts() if row["images"]]
        study = max(studies, key=lambda row: row["answers"])
        sql = "SELECT DISTINCT image_id FROM visual_tokens WHERE study = $study ORDER BY 1"
        images = dataset.collect(sql, study=study["study"])["image_id"].to_list()
        frequent = dataset.collect("frequent_words", study=study["study"], top=10**6)["word"].to_list()
        known = [word for word in frequent if re.fullmatch(r"\w+", word)]
    places = [
        {"study": study["study"], "image": draw.choice(images), "layer": layer, "lens": draw.choice(study["lenses"])}
        for layer in draw.choices(study["visual_layers"], k=PLACES)
    ]
    steps = [round((len(known) - 1) ** (step / (WORDS - 1))) for step in range(WORDS)]
    words = list(dict.fromkeys(known[step - 1 if step == 1 else step] for step in steps))
    return places, [*words, *(word for word in known[2::97] if word not in words)][: WORDS + 3]


@dataclass(frozen=True)
class Server:
    """A running `latentlens-dag browse`."""

    address: str
    process: subprocess.Popen[str]
    start_ms: float
    """Until it said so."""

    def cpu_ms(self) -> float:
        """The processor's time that its processes have taken so far."""
        ticks = 0
        for pid in _tree(self.process.pid):
            with suppress(OSError):  # it has ended
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                ticks += int(fields[11]) + int(fields[12])
        return 1000 * ticks / os.sysconf("SC_CLK_TCK")


@contextmanager
def _served(source: str, cache: str) -> Iterator[Server]:
    start = time.perf_counter()
    command = [sys.executable, "-c", _MAIN, "browse", source, "--no-open"]
    environment = {**os.environ, "HF_HOME": cache}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        address = process.stdout.readline().split()[0]
        try:
            yield Server(address, process, 1000 * (time.perf_counter() - start))
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(timeout=30)


@dataclass
class Memory:
    """The largest resident memory of a process with its descendants, in bytes."""

    most: int = 0
    parts: tuple[int, ...] = ()
    """Of each process when it was largest, the command first, then the server."""


@contextmanager
def _memory(process: subprocess.Popen[str]) -> Iterator[Memory]:
    """Look 20 times a second."""
    found, ended = Memory(), threading.Event()

    def look() -> None:
        while not ended.wait(0.05):
            parts = tuple(_resident(pid) for pid in _tree(process.pid))
            if sum(parts) > found.most:
                found.most, found.parts = sum(parts), parts

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    yield found
    ended.set()
    thread.join()


def _tree(pid: int) -> list[int]:
    """A process and its descendants; a child is its thread's that started it."""
    children: list[str] = []
    for thread in Path(f"/proc/{pid}/task").glob("*"):
        with suppress(OSError):  # it has ended
            children += (thread / "children").read_text().split()
    return [pid, *(one for child in children for one in _tree(int(child)))]


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


class Cost(NamedTuple):
    """What one thing that a person does takes."""

    ms: list[float]
    """Until what was asked for is there; of several things in their order."""
    cpu_ms: float
    """Of the server, with what it does right after."""


def _first_view(chromium: Browser, server: Server) -> float:
    """From navigation to the gallery, in a browser that has nothing in its cache."""
    page = _new_page(chromium)
    page.goto(server.address, wait_until="commit")
    (found,) = _watched(page, server, None, [_PICTURES]).ms
    page.context.close()
    return found


def _clicks(page: Page, server: Server, place: dict[str, Any], count: int) -> list[Cost]:
    """Clicks on different patches of one image at one layer and lens."""
    query = "&".join(f"{name}={value}" for name, value in place.items())
    page.goto(f"{server.address}/?{query}")
    page.locator("rect.patch").first.wait_for()
    page.locator(".ll-neighbors").wait_for()
    page.wait_for_timeout(_PAUSE_MS)
    ids = page.locator("rect.patch").evaluate_all("(all) => all.map((one) => Number(one.dataset.id))")
    found = []
    for token in random.Random(str(place)).sample(ids, count):
        if page.get_by_text(f"Token {token}", exact=True).count():
            continue
        said = f"""[...document.querySelectorAll(".ll-facts b")].some((one) => one.textContent === "Token {token}")"""
        box = page.locator(f"rect.patch[data-id='{token}']")
        box.scroll_into_view_if_needed()
        shown = [f"{said} && document.querySelector('.ll-neighbors li')"]
        found.append(_watched(page, server, "click", shown, box.click))
    return found


def _search(page: Page, server: Server, place: dict[str, Any], word: str) -> Cost:
    """A word typed on the page Words: when its pictures are drawn, and when its curves are."""
    page.goto(f"{server.address}/words?study={place['study']}&lens=latentlens")
    field = page.get_by_label("Words", exact=True)
    field.wait_for()
    page.wait_for_selector(_DONE)
    page.wait_for_timeout(_PAUSE_MS)
    field.fill(word)
    return _watched(page, server, "keydown", [_PICTURES, _CURVES], lambda: field.press("Enter"))


def _watched(page: Page, server: Server, event: str | None, conditions: list[str], act: Any = None) -> Cost:
    page.evaluate(_WATCH, [event, conditions])
    before = server.cpu_ms()
    if act:
        act()
    found = list(page.evaluate("window.watched"))
    page.wait_for_timeout(_PAUSE_MS)
    return Cost(found, server.cpu_ms() - before)


if __name__ == "__main__":
    main()
