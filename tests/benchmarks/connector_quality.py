"""Whether connectors that a project trains are as good as the demo's: `python -m tests.benchmarks.connector_quality`.

The demo's frozen language model and vision encoder, 6,000 scenes with captions of what is kept, and connectors of
several seeds, trained by the component; two learn from captions of other scenes. Each is read by a study on 64 fresh
scenes, beside the shipped model. Everything is one project: a run that is stopped goes on.
"""

import argparse
import json
import sys
from contextlib import chdir, redirect_stdout
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq

from latentlens_dag.demo.assemble import load_saved_parts, new_processor
from latentlens_dag.demo.captioned import write_captioned_scenes
from latentlens_dag.demo.corpus import write_corpus
from latentlens_dag.demo.scenes import FRESH_FROM, SceneSource, random_scene, write_scenes
from latentlens_dag.storage.home import Home

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "assets" / "demo" / "model"
SCENES, PARTS, FRESH = 6000, 12, 64
STEPS, KEPT = 2400, (0, 600)
SHIPPED, OTHERS, OTHERS_WHOLE = "shipped", "permuted", "permuted_whole"
PARTLY = "whole: 0.15, captioned: 0.85"
WHOLE = "whole: 0.25, subset: 0.45, window: 0.2, few: 0.1"
"""Captions of whole scenes alone: which tokens a step keeps has nothing to do with the caption."""
_COMMON = f"""\
type: latentlens_dag.dag.components.Corpus
attributes: {{name: own, source: {{lines: own.txt.gz}}, shards: 1}}
---
type: latentlens_dag.dag.components.ImageSet
attributes: {{name: fresh, source: {{folder: scenes}}, regions: {{masks: regions.parquet}}}}
---
type: latentlens_dag.dag.components.Index
attributes: {{name: own, language_model: {{path: language}}, corpus: own, layers: [1, 2, 3, 4, 5, 6, 7],
  contexts_per_token: 3}}
---
type: latentlens_dag.dag.components.Study
attributes: {{name: {SHIPPED}, vlm: {{path: {json.dumps(str(MODEL))}}}, index: own, images: fresh,
  layers: [0, 1, 2, 3, 4, 5, 6, 7], unique: sentence, judge: {{regions: {{}}}}}}
"""
_FEATURES = """\
---
type: latentlens_dag.dag.components.ImageSet
attributes:
  name: {name}
  source: {{folder: learned/scenes}}
  captions: {{parquet: {captions}, patches: patches, grid: [12, 12]}}
  batches: 8
---
type: latentlens_dag.dag.components.VisionFeatures
attributes: {{name: {name}, vision_encoder: {{path: encoder}}, images: {name}, layer: -1}}
"""
_CONNECTOR = """\
---
type: latentlens_dag.dag.components.Connector
attributes:
  name: {name}
  language_model: {{path: language}}
  features: {features}
  seed: {seed}
  steps: {steps}
  checkpoints: {kept}
  tokens: 1600
  learning_rate: 0.012
  output_scale: 8.0
  fixed_size: true
  finished_scale: 6.5
  kept: {{{kept_tokens}}}
"""
_STUDY = """\
---
type: latentlens_dag.dag.components.Study
attributes:
  name: {name}_{step}
  vlm: {{connector: {name}, step: {step}}}
  index: own
  images: fresh
  layers: [0, 1, 2, 3, 4, 5, 6, 7]
  unique: sentence
  judge: {{regions: {{}}}}
"""


def write_project(folder: Path, seeds: int, steps: int) -> None:
    """Write the project, as far as it is not there."""
    here = folder / "assets" / "quality"
    here.mkdir(parents=True, exist_ok=True)
    source = SceneSource.open()
    if not (here / "encoder").is_dir():
        _write_parts(here)
    if not (here / "learned" / "captions.parquet").is_file():
        write_captioned_scenes(source, here / "learned", SCENES, PARTS)
    if not (here / "regions.parquet").is_file():
        write_scenes(
            source.world, source.atlas, here, [random_scene(source.world, FRESH_FROM + n) for n in range(FRESH)]
        )
        write_corpus(source.world, here / "own.txt.gz")
    _write_permuted(here / "learned")
    defs = _COMMON + _FEATURES.format(name="learned", captions="learned/captions.parquet")
    defs += _FEATURES.format(name=OTHERS, captions="learned/permuted.parquet")
    names = {f"seed_{seed}": ("learned", seed, PARTLY) for seed in range(seeds)}
    names |= {OTHERS: (OTHERS, 0, PARTLY), OTHERS_WHOLE: (OTHERS, 0, WHOLE)}
    kept = [step for step in KEPT if step < steps]
    for name, (features, seed, tokens) in names.items():
        own = {"name": name, "features": features, "seed": seed, "kept_tokens": tokens}
        defs += _CONNECTOR.format(**own, steps=steps, kept=kept)
        for step in [*kept, steps] if name == "seed_0" else [steps]:
            defs += _STUDY.format(name=name, step=step)
    (here / "defs.yaml").write_text(defs)
    (folder / "workspace.yaml").write_text("load_from: []\n")


def _write_parts(here: Path) -> None:
    """The shipped model's language model and vision encoder as models of their own."""
    import torch

    language, tokenizer, encoder = load_saved_parts(MODEL)
    tokenizer.chat_template = None  # the image token is the model's, and no template of a language model has one
    for part in (language, tokenizer):
        getattr(part, "to", lambda _: None)(torch.bfloat16)
        part.save_pretrained(here / "language")
    encoder.to(torch.bfloat16).save_pretrained(here / "encoder")
    new_processor(tokenizer).image_processor.save_pretrained(here / "encoder")


def _write_permuted(learned: Path) -> None:
    """The captions, each of another scene: that half of all scenes further on."""
    table = pq.read_table(learned / "captions.parquet")
    number = pl.Series(table["file_name"].to_pylist()).str.slice(0, 6).cast(pl.Int64)
    names = ((number + SCENES // 2) % SCENES).cast(pl.String).str.zfill(6) + ".png"
    column = table.schema.get_field_index("file_name")
    pq.write_table(table.set_column(column, "file_name", names.to_arrow().cast("string")), learned / "permuted.parquet")


def figures(warehouse: Any, study: str) -> list[dict[str, Any]]:
    """LatentLens's concrete share by layer, with intervals and chance, in percent."""
    table = pl.read_parquet(warehouse.summary(study, "interpretability"))
    rows = table.filter(lens="latentlens", measure="concrete", patch_group="all").filter(pl.col("k") == 5)
    columns = ["visual_layer", "share", "low", "high", "chance", "chance_low", "chance_high"]
    return [
        {name: value if name == "visual_layer" else round(100 * value, 1) for name, value in row.items()}
        for row in rows.sort("visual_layer").select(columns).to_dicts()
    ]


def main() -> None:
    """Write, build and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=Path(".latentlens/connector-quality"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--build", nargs="*", help="only these studies (default: all)")
    options = parser.parse_args()
    from latentlens_dag.cli.build import build

    write_project(options.folder, options.seeds, options.steps)
    home = Home(options.folder.resolve() / ".latentlens")
    with chdir(options.folder), redirect_stdout(sys.stderr):
        build.main([*(options.build or []), "--home", str(home.root)], standalone_mode=False)
    studies = sorted(path.parent.name for path in home.warehouse.study("x").parent.glob("*/interpretability.parquet"))
    sys.stdout.write(json.dumps({study: figures(home.warehouse, study) for study in studies}, indent=1) + "\n")


if __name__ == "__main__":
    main()
