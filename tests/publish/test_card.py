import html
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

from latentlens_dag.publish.card import citation, escape_markdown
from latentlens_dag.publish.data_dictionary import COLUMNS, TABLE_TITLES
from latentlens_dag.publish.snippets import snippets_of
from latentlens_dag.schema import TABLES, lens_title
from latentlens_dag.study.interpretability import MEASURES
from tests.helpers.hub_server import HubServer, Repo
from tests.helpers.released import ABOUT, DECLARED, contents, stage, write_warehouse

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A staged release of two images; not to be written to."""
    warehouse = write_warehouse(tmp_path_factory.mktemp("carded") / "warehouse", images=2)
    stage(warehouse)
    return warehouse.release("small")


@pytest.fixture
def hub(folder: Path) -> HubServer:
    """The Hub that has it."""
    server = HubServer()
    server.add(Repo(ABOUT.repo_id, contents(folder)))
    return server


def card_of(folder: Path) -> str:
    return (folder / "README.md").read_text(encoding="utf-8")


def front_matter(card: str) -> dict[str, Any]:
    found = re.match(r"---\n(.*?)\n---\n", card, re.DOTALL)
    assert found
    facts: dict[str, Any] = yaml.safe_load(found[1])
    return facts


def test_every_snippet_of_the_card_runs(folder: Path, hub: HubServer, tmp_path: Path) -> None:
    snippets = snippets_of(card_of(folder))
    assert snippets.keys() == {"datasets", "streaming", "polars", "duckdb", "pandas", "latentlens_dag"}
    done = hub.run(QUIET + RUN_ALL, json.dumps(snippets), home=tmp_path / "home", HF_HUB_DISABLE_PROGRESS_BARS="1")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert "'image_id': " in said["datasets"] and "WebPImageFile" in said["datasets"]
    assert len(said["streaming"].splitlines()) == 5
    assert "latentlens" in said["polars"] and "shape: (10, 3)" in said["polars"]
    assert " is near a " in said["duckdb"]
    assert "distinct_words" in said["pandas"]


# The library asks two other services besides the Hub, and does without them where they are not to be reached.
QUIET = """
import datasets
datasets.config.USE_PARQUET_EXPORT = datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = False
"""
RUN_ALL = """
import contextlib, io, json
said = dict()
for name, code in json.loads(sys.argv[1]).items():
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(compile(code, name, "exec"), {})
    said[name] = out.getvalue()
print(json.dumps(said))
"""


def test_the_library_datasets_loads_every_config_whole_and_as_a_stream(
    folder: Path, hub: HubServer, tmp_path: Path
) -> None:
    configs = [config["config_name"] for config in front_matter(card_of(folder))["configs"]]
    done = hub.run(QUIET + LOAD_ALL, ABOUT.repo_id, json.dumps(configs), home=tmp_path / "home")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    rows = {table: len(frame) for table, frame in _frames(folder).items()}
    assert found["names"] == sorted(rows)
    assert found["default"] == "neighbors"
    assert found["rows"] == found["streamed"] == rows
    assert found["picture"] == found["streamed_picture"] == [64, 64]


LOAD_ALL = """
import json
from datasets import get_dataset_config_names, get_dataset_default_config_name, load_dataset
repo, configs = sys.argv[1], json.loads(sys.argv[2])
found = {"names": sorted(get_dataset_config_names(repo)), "default": get_dataset_default_config_name(repo)}
whole = {name: load_dataset(repo, name, split="train") for name in configs}
found["rows"] = {name: len(rows) for name, rows in whole.items()}
stream = {name: load_dataset(repo, name, split="train", streaming=True) for name in configs}
found["streamed"] = {name: sum(1 for _ in rows) for name, rows in stream.items()}
found["picture"] = whole["images"][0]["thumbnail"].size
found["streamed_picture"] = next(iter(stream["images"]))["thumbnail"].size
print(json.dumps(found))
"""


def _frames(folder: Path) -> dict[str, pl.DataFrame]:
    """Every table of a release."""
    files: dict[str, list[Path]] = {}
    for file in sorted(folder.rglob("*.parquet")):
        files.setdefault(file.relative_to(folder).parts[0].removesuffix(".parquet"), []).append(file)
    return {table: pl.concat([pl.read_parquet(one) for one in some]) for table, some in files.items()}


def test_the_configs_name_every_table_and_every_file_of_it(folder: Path) -> None:
    facts = front_matter(card_of(folder))
    assert [config["config_name"] for config in facts["configs"] if config.get("default")] == ["neighbors"]
    for config in facts["configs"]:
        named = set(folder.glob(config["data_files"]))
        assert named == set(folder.glob(f"{config['config_name']}*/**/*.parquet")) | set(
            folder.glob(f"{config['config_name']}.parquet")
        )
    assert facts["license"] == "apache-2.0"
    assert facts["size_categories"] == ["1K<n<10K"]


def test_the_results_are_those_of_the_tables(folder: Path) -> None:
    card = card_of(folder)
    every = _frames(folder)["interpretability"].filter(pl.col("patch_group") == "all")
    assert len(every) == 3 * 2 * 2 * 4
    for row in every.rows(named=True):
        by = "Judged by the nearest answer alone" if row["k"] == 1 else f"Judged by {row['k']} answers"
        start = f"| {lens_title(row['lens'])} | {row['visual_layer']} |"
        (line,) = [line for line in _section(card, f"**{by}**") if line.startswith(start)]
        cells = line.removesuffix(" |").split(" | ")[2:]
        figures = [
            f"{100 * row[name]:.1f} [{100 * row[f'{ends}low']:.1f}-{100 * row[f'{ends}high']:.1f}]"
            for name, ends in (("share", ""), ("chance", "chance_"), ("excess", "excess_"))
        ]
        assert cells[MEASURES.index(row["measure"])] == " / ".join(figures)
        if row["measure"] == "interpretable":
            assert cells[-1] == f"{row['effective_tokens']:,.0f}"
            assert f"**{by}**: % of {row['tokens']} visual tokens of {row['images']} images" in card


def test_the_papers_measure_comes_first_and_concrete_beside_it(folder: Path) -> None:
    head = "| lens | visual layer | interpretable | concrete | abstract | global | effective tokens |"
    assert card_of(folder).count(head) == 2


def _section(card: str, start: str) -> list[str]:
    return card.split(start)[1].split("\n\n")[1].splitlines()


def test_without_a_judge_the_card_says_what_is_known(tmp_path: Path) -> None:
    warehouse = write_warehouse(tmp_path / "warehouse", images=1, batches=1, judged=False)
    stage(warehouse)
    card = card_of(warehouse.release("small"))
    assert "Nobody judged the answers" in card
    tables = _frames(warehouse.release("small"))
    words = tables["diversity"].filter(lens="logitlens", visual_layer=4)["distinct_words"][0]
    assert any(line.startswith("| 4 |") and f" {words:.2f} " in line for line in card.splitlines())
    aligned = tables["layer_alignment"].filter(visual_layer=4, contextual_layer=2).row(0, named=True)
    beside = "/".join(f"{100 * aligned[name]:.1f}" for name in ("share", "null_share") if aligned[name] is not None)
    assert re.search(rf"\| 4 \| [\d./]+ \| {beside} \|", card)
    assert ("of a null's answers" in card) == (aligned["null_share"] is not None)


HOSTILE = (
    "<script>alert(1)</script> [a](https://evil.example) ![b](x) `c` **d** | e_f_ www.evil.example @someone #1\n# g"
)


@pytest.mark.parametrize("text", [HOSTILE, "a\n\n---\nlicense: mit\n---\n", "</details><img src=x onerror=y>", "&amp;"])
def test_text_of_others_is_neither_markdown_nor_html(text: str) -> None:
    shown = escape_markdown(text)
    assert html.unescape(shown) == " ".join(text.split())
    assert not re.search(r"[<>\[\]`*|#@:!~\\]", re.sub(r"&#\d+;", "", shown))
    assert "www." not in shown
    assert "\n" not in shown


def test_what_comes_from_data_is_escaped_on_the_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = dict.fromkeys(("prompt", "prompt_before", "system_prompt"), HOSTILE)
    words = {**DECLARED, **prompts, "model": {"name": HOSTILE, "revision": None}}
    words |= {"images": {"name": "pictures", "source": HOSTILE}, "index": {**DECLARED["index"], "source": HOSTILE}}
    monkeypatch.setitem(stage.__globals__, "DECLARED", words)
    about = replace(ABOUT, title=HOSTILE, description=HOSTILE, image_license=HOSTILE, text_license=HOSTILE)
    warehouse = write_warehouse(tmp_path / "warehouse", images=1, batches=1)
    stage(warehouse, about=about)
    card = card_of(warehouse.release("small"))
    assert front_matter(card)["pretty_name"] == " ".join(HOSTILE.split())
    text = card.split("\n---\n", 1)[1]
    assert text.count("alert") >= 10
    for wrong in ("<script", "](https://evil", "www.evil", "@someone", "`c`", "**d**"):
        assert wrong not in text


def test_every_column_is_told_on_the_card(folder: Path) -> None:
    assert set(COLUMNS) == {name for schema in TABLES.values() for name in schema.names}
    assert set(TABLE_TITLES) == set(TABLES)
    card = card_of(folder)
    for table, frame in _frames(folder).items():
        section = card.split(f"\n### {table}\n")[1].split("\n### ")[0].split("\n## ")[0]
        assert f"\n{len(frame):,} rows: " in section
        assert re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE) == frame.columns


def test_the_citation_is_that_of_the_project() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    (paper,) = cited["references"]
    for part in (cited["title"], cited["version"], cited["license"], cited["authors"][0]["name"], paper["title"]):
        assert part in citation()
    assert "2602.00462" in citation() and "2602.00462" in paper["notes"]


def test_the_citation_names_the_version_that_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("latentlens_dag.publish.card.package_versions", lambda: {"latentlens-dag": "7.8.9"})
    assert "version = {7.8.9}," in citation()


def test_the_card_has_the_text_around_the_image_in_its_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = {"prompt_before": "A dog", "system_prompt": "Be brief"}
    monkeypatch.setitem(stage.__globals__, "DECLARED", {**DECLARED, **parts})
    warehouse = write_warehouse(tmp_path / "warehouse", images=1, batches=1)
    stage(warehouse)
    lines = "- system prompt: Be brief\n- prompt before the image: A dog\n- prompt: What is this&#63;\n"
    assert lines in card_of(warehouse.release("small"))


def test_the_card_says_how_it_was_made(folder: Path) -> None:
    card = card_of(folder)
    assert "- images: 2 of `pictures`, from pictures\n" in card
    assert "- prompt: What is this&#63;\n" in card
    assert "- index contextual layers: 1, 2\n" in card
    assert "- index corpus: 64 sentences of `text`, from corpus&#46;txt\n" in card
