"""Two kinds of connectors, two seeds and three steps on the demo's parts in one home, compared by the queries.

`python -m tests.benchmarks.connector_grid` trains for a few minutes and prints what the paper's tables compare: how
much is interpretable over the steps, and how far two runs give the same answers. A run that is stopped goes on.
"""

import argparse
import sys
from contextlib import chdir, redirect_stdout
from pathlib import Path

from latentlens_dag.dataset.dataset import open_dataset
from latentlens_dag.demo.captioned import write_captioned_scenes
from latentlens_dag.demo.corpus import write_corpus
from latentlens_dag.demo.scenes import FRESH_FROM, SceneSource, random_scene, write_scenes
from latentlens_dag.storage.home import Home
from tests.benchmarks.connector_quality import _COMMON, _FEATURES, SHIPPED, _write_parts

KINDS, SEEDS, STEPS = ("mlp", "linear"), (0, 1), (0, 100, 300)
SCENES, PARTS, FRESH, LAYERS = 1500, 8, 16, (0, 4)
_CONNECTOR = """\
---
type: latentlens_dag.dag.components.Connector
attributes: {{name: {name}, language_model: {{path: language}}, features: learned, kind: {kind}, seed: {seed},
  steps: {last}, checkpoints: {kept}, tokens: 1200, learning_rate: 0.012, output_scale: 8.0, fixed_size: true,
  finished_scale: 6.5, kept: {{whole: 0.15, captioned: 0.85}}}}
"""
_STUDY = """\
---
type: latentlens_dag.dag.components.Study
attributes: {{name: {name}_{step}, vlm: {{connector: {name}, step: {step}}}, index: own, images: fresh,
  layers: {layers}, lenses: [latentlens, embeddinglens], captions: true, judge: {{regions: {{}}}}}}
"""


def write_project(folder: Path) -> None:
    """Write the project, as far as it is not there."""
    here = folder / "assets" / "grid"
    here.mkdir(parents=True, exist_ok=True)
    source = SceneSource.open()
    if not (here / "regions.parquet").is_file():
        _write_parts(here)
        write_captioned_scenes(source, here / "learned", SCENES, PARTS)
        scenes = [random_scene(source.world, FRESH_FROM + number) for number in range(FRESH)]
        write_scenes(source.world, source.atlas, here, scenes)
        write_corpus(source.world, here / "own.txt.gz")
    common = _COMMON[: _COMMON.index("---\ntype: latentlens_dag.dag.components.Study")]
    assert SHIPPED in _COMMON
    defs = common + _FEATURES.format(name="learned", captions="learned/captions.parquet")
    for kind in KINDS:
        for seed in SEEDS:
            name = f"{kind}_{seed}"
            defs += _CONNECTOR.format(name=name, kind=kind, seed=seed, last=STEPS[-1], kept=list(STEPS[:-1]))
            defs += "".join(_STUDY.format(name=name, step=step, layers=list(LAYERS)) for step in STEPS)
    (here / "defs.yaml").write_text(defs)
    (folder / "workspace.yaml").write_text("load_from: []\n")


def main() -> None:
    """Write, build and compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=Path(".latentlens/connector-grid"))
    folder = parser.parse_args().folder
    from latentlens_dag.cli.build import build

    write_project(folder)
    home = Home(folder.resolve() / ".latentlens")
    with chdir(folder), redirect_stdout(sys.stderr):
        build.main(["--home", str(home.root)], standalone_mode=False)
    sys.stdout.write(compared(home))


def compared(home: Home) -> str:
    """What the queries say of the grid, as CSV."""
    columns = ["connector", "lens", "visual_layer", "step", "percent", "percent_low", "percent_high", "chance_percent"]
    parts, last = list[str](), STEPS[-1]
    with open_dataset(home.root) as dataset:
        steps = dataset.collect("training_steps", measure="concrete", layer=str(LAYERS[-1]))
        parts.append(steps.select(columns).write_csv())
        for one, other in (("mlp_0", "mlp_1"), ("linear_0", "linear_1"), ("mlp_0", "linear_0")):
            found = dataset.collect("neighbor_overlap", study=f"{one}_{last}", other_study=f"{other}_{last}")
            parts.append(f"{one} and {other}\n{found.write_csv()}")
        parts.append(dataset.collect("FROM caption_scores WHERE kind = 'all' ORDER BY measure, study").write_csv())
    return "\n".join(parts)


if __name__ == "__main__":
    main()
