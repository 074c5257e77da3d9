"""A release of the Hub, browsed by its name in a real Chromium: pulled once, and shown again without a network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.dashboards.test_browser import pytestmark  # noqa: F401
from tests.helpers.hub_server import HubServer, Repo
from tests.helpers.small_release import files_of, write_release

ROOT = Path(__file__).parents[2]
NAME = "user/small@v1.0.0"
CLI = "from latentlens_dag.cli.main import main; main()"
# A person's whole visit, where nothing but the Hub of the test and their own machine can be reached.
VISIT = """
root, name = sys.argv[1:]
sys.path.insert(0, root)
import json, time
from pathlib import Path
from playwright.sync_api import sync_playwright
from tests.dashboards.test_browser import CHROMIUM, FLAGS, served

def look(page, address):
    page.goto(f"{address}/?study=one")
    page.get_by_role("button", name="dog.png").click()
    page.locator("rect[data-id='0']").click()
    page.get_by_text("Token 0", exact=True).wait_for()
    said = page.locator(".ll-neighbors").inner_text()
    page.goto(f"{address}/about")
    page.get_by_test_id("stCode").get_by_text(name).first.wait_for()
    return said

with served(name) as address, sync_playwright() as play:
    chromium = play.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
    page = chromium.new_page()
    elsewhere = []
    page.on("request", lambda one: one.url.startswith((address, "data:", "blob:")) or elsewhere.append(one.url))
    found = {"said": look(page, address), "alerts": page.get_by_test_id("stAlert").count(), "elsewhere": elsewhere}
    chromium.close()
    catalogs = Path(os.environ["HF_HOME"], "assets")
    until = time.monotonic() + 60
    while not (made := list(catalogs.rglob("*.duckdb"))) and time.monotonic() < until:
        time.sleep(0.1)
    found["catalogs"] = len(made)
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> HubServer:
    hub, release = HubServer(), write_release(tmp_path_factory.mktemp("releases") / "small")
    hub.add(Repo("user/small", files_of(release), refs=("main", "v1.0.0")))
    return hub


def _visit(hub: HubServer, home: Path, **environment: str) -> dict[str, Any]:
    run = hub.run(VISIT, str(ROOT), NAME, home=home, **environment)
    assert run.returncode == 0, run.stderr
    return dict(json.loads(run.stdout.splitlines()[-1]))


def test_a_release_is_browsed_by_its_name_and_again_without_a_network(hub: HubServer, tmp_path: Path) -> None:
    found = _visit(hub, tmp_path / "home")
    assert "A dog is here." in found["said"]
    assert (found["catalogs"], found["alerts"], found["elsewhere"]) == (1, 0, [])
    hub.requests.clear()
    hub.down = True
    try:
        assert _visit(hub, tmp_path / "home") == found  # now out of the catalog
        offline = hub.run(CLI, "browse", "user/none@v1.0.0", "--no-open", home=tmp_path / "home")
    finally:
        hub.down = False
    assert not hub.requests
    assert offline.returncode == 2 and "Traceback" not in offline.stderr
