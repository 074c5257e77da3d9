"""A graph of the project's shape whose steps write a word each: what a build does, without a model."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg

from latentlens_dag.dag.versions import SOURCE_PATH
from latentlens_dag.storage.home import Home

BATCHES = dg.StaticPartitionsDefinition(["00", "01", "02"])
PICTURES, TOKENS = dg.AssetKey(["images", "pics", "pictures"]), dg.AssetKey(["study", "s", "visual_tokens"])
SOURCE, SUMMARY = dg.AssetKey(["images", "pics", "source"]), dg.AssetKey(["study", "s", "interpretability"])
TABLE = {layer: dg.AssetKey(["index", "words", "table", f"L0{layer}"]) for layer in (1, 2)}
VISUAL = {layer: dg.AssetKey(["study", "s", "visual", f"V0{layer}"]) for layer in (0, 1)}
JUDGED = {layer: dg.AssetKey(["study", "s", "judgements", f"V0{layer}"]) for layer in (0, 1)}


def small_definitions(folder: Path, code_version: str = "1", summarized: tuple[int, ...] = (0, 1)) -> dg.Definitions:
    """source -> pictures[batch] -> visual[batch] -> judgements[batch] -> interpretability, and a table.

    A step writes the word in FOLDER/words/STEP ("1" without that file), fails where it is "fail", and sleeps
    where it is "sleep", after it made the file FOLDER/sleeping. Every judgement reads the tokens of all batches.
    """

    def content(step: str) -> dg.DataVersion:
        file = folder / "words" / step
        word = file.read_text() if file.is_file() else "1"
        if word == "sleep":
            (folder / "sleeping").touch()
            time.sleep(120)
        if word == "full":
            raise OSError(28, "No space left on device", str(folder / "warehouse" / "x.parquet"))
        if word == "fail":
            raise ValueError("the step is to fail")
        print(f"{step} prints {word}")  # noqa: T201
        return dg.DataVersion(word)

    @dg.observable_source_asset(key=SOURCE, metadata={SOURCE_PATH: str(folder / "source.txt")})
    def source() -> dg.DataVersion:
        raise AssertionError

    @dg.asset(key=PICTURES, deps=[SOURCE], partitions_def=BATCHES, code_version=code_version)
    def pictures() -> dg.MaterializeResult:
        facts = {"dagster/row_count": 10, "size_bytes": 1000}
        return dg.MaterializeResult(data_version=content("pictures"), metadata=facts)

    @dg.multi_asset(
        name="s_visual",
        specs=[
            dg.AssetSpec(key, deps=[PICTURES], skippable=True, code_version=code_version)
            for key in (*VISUAL.values(), TOKENS)
        ],
        partitions_def=BATCHES,
        can_subset=True,
    )
    def visual(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult]:
        for key in sorted(context.selected_asset_keys):
            yield dg.MaterializeResult(key, data_version=content("visual"), metadata={"dagster/row_count": 4})

    every = dg.AssetDep(TOKENS, partition_mapping=dg.AllPartitionMapping())

    @dg.multi_asset(
        name="s_judgements",
        specs=[
            dg.AssetSpec(key, deps=[VISUAL[layer], every], skippable=True, code_version=code_version)
            for layer, key in JUDGED.items()
        ],
        partitions_def=BATCHES,
        can_subset=True,
    )
    def judgements(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult]:
        for key in sorted(context.selected_asset_keys):
            yield dg.MaterializeResult(key, data_version=content("judgements"))

    @dg.asset(key=SUMMARY, deps=[JUDGED[layer] for layer in summarized], code_version=code_version)
    def interpretability() -> dg.MaterializeResult:
        return dg.MaterializeResult(data_version=content("interpretability"))

    @dg.multi_asset(
        name="words_table", specs=[dg.AssetSpec(key, skippable=True) for key in TABLE.values()], can_subset=True
    )
    def table(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult]:
        for key in sorted(context.selected_asset_keys):
            yield dg.MaterializeResult(key, data_version=content("table"))

    return dg.Definitions(assets=[source, pictures, visual, judgements, interpretability, table])


def small_project(folder: Path) -> Home:
    """The folder of such a graph, with its source; its home."""
    (folder / "words").mkdir(parents=True)
    (folder / "source.txt").write_text("one")
    return Home(folder)


def say(home: Home, step: str, word: str) -> None:
    """Let a step write another word."""
    (home.root / "words" / step).write_text(word)


@contextmanager
def opened(home: Home) -> Iterator[object]:
    """The project of the graph, as the command line opens it."""
    from latentlens_dag.dag import loading
    from latentlens_dag.dag.building.opening import open_project

    before = loading.load_definitions
    loading.load_definitions = lambda home: small_definitions(home.root)
    try:
        with open_project(home) as project:
            yield project
    finally:
        loading.load_definitions = before


def main() -> None:
    """The command line on the graph in the home that the environment names."""
    from latentlens_dag.cli import main as cli
    from latentlens_dag.dag import loading

    loading.load_definitions = lambda home: small_definitions(home.root)
    cli.main()


if __name__ == "__main__":
    sys.path.insert(0, os.getcwd())  # noqa: PTH109
    main()
