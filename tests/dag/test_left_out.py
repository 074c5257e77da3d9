"""What a folder of pictures holds besides the images of a set is said in the log and the metadata of the step."""

from pathlib import Path

import dagster as dg
from PIL import Image

from latentlens_dag.dag.loading import load_definitions
from latentlens_dag.storage.home import Home

YAML = "type: latentlens_dag.dag.components.ImageSet\nattributes: {name: seen, source: {folder: pictures}}\n"


def test_the_step_that_lists_images_says_how_many_files_it_left_out_and_why(tmp_path: Path) -> None:
    (tmp_path / "workspace.yaml").write_text("load_from: []\n")
    pictures = tmp_path / "assets" / "a" / "pictures"
    pictures.mkdir(parents=True)
    (tmp_path / "assets" / "a" / "defs.yaml").write_text(YAML)
    Image.new("RGB", (8, 8)).save(pictures / "a.png")
    for name in ("b.heic", "c.heic", "d.txt"):
        (pictures / name).write_text(name)
    home = Home(tmp_path / "home")
    home.prepare()
    job = load_definitions(tmp_path, home).resolve_implicit_global_asset_job_def()
    key = dg.AssetKey(["images", "seen", "names"])
    with dg.DagsterInstance.from_config(str(home.dagster)) as instance:
        assert job.execute_in_process(asset_selection=[key], instance=instance).success
        event = instance.get_latest_materialization_event(key)
    assert event is not None and event.asset_materialization is not None
    facts = {name: value.value for name, value in event.asset_materialization.metadata.items()}
    assert (facts["other_files"], facts["hidden_images"], facts["repeated_images"], facts["linked_folders"]) == (
        3,
        0,
        0,
        0,
    )
    assert "3 files (2 .heic, 1 .txt)" in str(facts["left_out"]) and facts["dagster/row_count"] == 1
    (log,) = home.dagster.glob("storage/*/compute_logs/*.err")
    assert "3 files (2 .heic, 1 .txt)" in log.read_text()
