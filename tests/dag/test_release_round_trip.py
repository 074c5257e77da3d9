"""From a study to the Hub and back: what one person builds and publishes, another pulls, asks and compares."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from latentlens_dag import open_dataset
from tests.dag.assets.test_release import OUT, _declare
from tests.dag.conftest import build
from tests.helpers.hub_server import HubServer

Copy = Callable[[Path], Path]
CLI = "from latentlens_dag.cli.main import main\nos.chdir(sys.argv.pop(1))\nmain()"
# The command asks PyPI for a newer version of itself, unless it is told not to.
HF = """
os.environ['HF_HUB_DISABLE_UPDATE_CHECK'] = '1'
from huggingface_hub.cli.hf import main
sys.argv[0] = 'hf'
main()
"""
BROWSED = """
from latentlens_dag.browse.browser_data import open_browser_data
data = open_browser_data(sys.argv[1])
print(data.collect("tiny", "find_images", layer=1).height, *data.studies())
"""
ANSWERS = "SELECT count(*) AS answers, max(rank) AS k, bool_and(text IS NOT NULL OR lens <> 'latentlens') AS told FROM "
JOINED = "neighbors LEFT JOIN sentences USING (sentence_id)"


@pytest.fixture(scope="module")
def hub(built_project: Path, tmp_path_factory: pytest.TempPathFactory) -> HubServer:
    """The Hub after two publications of a study: of three answers, then of two."""
    import shutil

    place = tmp_path_factory.mktemp("round_trip")
    project = _declare(Path(shutil.copytree(built_project, place / "project")), OUT)
    hub, home = HubServer(), place / "author"

    def publish(*options: str) -> dict[str, object]:
        run = hub.run(CLI, str(project), "publish", "out", "--json", *options, home=home, HF_TOKEN="hf_author")
        assert run.returncode == 0, run.stderr
        return dict(json.loads(run.stdout))

    assert "release/out/dataset" in build(project)
    assert publish("--dry-run")["parent"] is None and not hub.repos
    assert publish("--tag", "v1.0.0")["committed"]
    assert not publish("--tag", "v1.0.0")["committed"]
    defs = project / "assets" / "tiny" / "defs.yaml"
    defs.write_text(defs.read_text().replace("top_k: 3", "top_k: 2"))
    assert "release/out/dataset" in build(project)
    second = publish("--tag", "v1.1.0")
    assert second["committed"] and not second["adds"] and not second["deletions"]
    changed = {str(path).split("/")[0] for path in second["replacements"]}
    assert {"neighbors", "manifest.json", "README.md"} <= changed
    assert not changed & {"images", "sentences", "visual_tokens", "regions", "queries"}
    assert set(hub.repos["dataset", "user/out"].tags) == {"v1.0.0", "v1.1.0"}
    shutil.rmtree(project)
    return hub


def _reader(hub: HubServer, tmp_path: Path, *arguments: str, code: str = CLI) -> str:
    where = [str(tmp_path)] if code == CLI else []
    run = hub.run(code, *where, *arguments, home=tmp_path / "reader")
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_another_person_pulls_a_tag_and_asks_it_without_a_model_and_later_without_a_network(
    hub: HubServer, tmp_path: Path
) -> None:
    pulled = json.loads(_reader(hub, tmp_path, "pull", "user/out@v1.0.0", "--output", "copy", "--json"))
    tokens = pulled["tables"]["visual_tokens"]
    assert pulled["fetched_files"] == pulled["files"] > 20
    (facts,) = json.loads(
        _reader(hub, tmp_path, "query", ANSWERS + JOINED, "--data", "user/out@v1.0.0", "--format", "json")
    )
    assert facts == {"answers": tokens * 3 * 3 * 3, "k": 3, "told": True}  # layers, lenses, answers
    with open_dataset(tmp_path / "copy") as copy:
        assert copy.collect(ANSWERS + JOINED).to_dicts() == [facts]
        assert copy.sql("SELECT count(*) FROM images").fetchall() == [(4,)]
    hub.down = True
    try:
        again = _reader(hub, tmp_path, "query", ANSWERS + JOINED, "--data", "user/out@v1.0.0", "--format", "json")
    finally:
        hub.down = False
    assert json.loads(again) == [facts]


def test_two_tags_are_compared_layer_by_layer(hub: HubServer, tmp_path: Path) -> None:
    found = json.loads(_reader(hub, tmp_path, "diff", "user/out@v1.0.0", "user/out@v1.1.0", "--json"))
    parts = {(one["part"], one["visual_layer"]): one for one in found["studies"]["tiny"]}
    assert {("latentlens", 0), ("logitlens", 2), ("embeddinglens", 1)} <= set(parts)
    assert all(one["same_nearest"] == 1 for (part, _), one in parts.items() if part != "judgements")
    rows = {one["table"]: (one["rows_first"], one["rows_second"]) for one in found["tables"]}
    assert rows["neighbors"][0] * 2 == rows["neighbors"][1] * 3


def test_what_the_hubs_own_command_downloads_opens_too(hub: HubServer, tmp_path: Path) -> None:
    folder = tmp_path / "downloaded"
    _reader(
        hub,
        tmp_path,
        *("download", "user/out", "--repo-type", "dataset", "--revision", "v1.1.0", "--local-dir", str(folder)),
        code=HF,
    )
    with open_dataset(folder) as data:
        assert data.sql("SELECT max(rank) FROM neighbors").fetchall() == [(2,)]
        assert data.named("studies").fetchall()


def test_the_browser_opens_a_release_by_its_name(hub: HubServer, tmp_path: Path) -> None:
    assert _reader(hub, tmp_path, "user/out@v1.1.0", code=BROWSED).split() == ["4", "tiny"]
