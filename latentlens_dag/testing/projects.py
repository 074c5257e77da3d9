"""A tiny project with one study, and a tiny VLM of any family."""

from __future__ import annotations

from pathlib import Path

from latentlens_dag.testing.models import SENTENCES


def tiny_families() -> list[str]:
    """The families of VLMs that `tiny_vlm` makes here, in alphabetical order.

    Those of `families.BUILDERS` have a region map; those of `unmapped_families.UNMAPPED_BUILDERS` have none. A family
    is left out if its processor needs a package that cannot be imported.
    """
    from latentlens_dag.errors import UserError
    from latentlens_dag.models.families.registry import check_packages
    from latentlens_dag.testing.families import BUILDERS
    from latentlens_dag.testing.unmapped_families import UNMAPPED_BUILDERS

    def has_packages(family: str) -> bool:
        try:
            check_packages(family, family)
        except UserError:
            return False
        return True

    return sorted(filter(has_packages, BUILDERS | UNMAPPED_BUILDERS))


def tiny_vlm(family: str, folder: Path, seed: int = 0) -> Path:
    """Write a tiny random model of a family of VLMs, with its processor and chat template, which `load_vlm` loads.

    Args:
        family: the `model_type` of its config, as `tiny_families` lists them; `pixtral` is a LLaVA with the vision
            tower of Pixtral.
        folder: to write to; it is made if it does not exist.
        seed: of the weights. The same seed gives the same model.

    Returns:
        The folder.

    Raises:
        UserError: where the family has no builder, or its processor needs a package that cannot be imported.
    """
    from latentlens_dag.errors import UserError
    from latentlens_dag.models.families.registry import check_packages
    from latentlens_dag.testing.families import BUILDERS
    from latentlens_dag.testing.unmapped_families import UNMAPPED_BUILDERS

    builders = BUILDERS | UNMAPPED_BUILDERS
    if family not in builders:
        raise UserError(f"There is no tiny model of the family `{family}`; there is of {', '.join(sorted(builders))}.")
    check_packages(family, f"A tiny model of {family}")
    builders[family](folder, seed)
    return folder


TINY_STUDY = """\
type: latentlens_dag.dag.components.Corpus
attributes: {name: text, source: {lines: corpus.txt}, shards: SHARDS}
---
type: latentlens_dag.dag.components.ImageSet
attributes: {name: pictures, source: {folder: pictures}, regions: {masks: regions.parquet}, batches: BATCHES}
---
type: latentlens_dag.dag.components.Index
attributes: {name: words, language_model: {path: model}, corpus: text, layers: [1, 2], contexts_per_token: 5}
---
type: latentlens_dag.dag.components.Study
attributes:
  name: tiny
  vlm: {path: model}
  index: words
  images: pictures
  layers: [0, 1, 2]
  top_k: 3
  judge: {regions: {}}
"""


def tiny_project(folder: Path, shards: int = 2, batches: int = 2, family: str = "llava") -> Path:
    """Write a project with one study named `tiny`: a random VLM, 8 sentences, 4 pictures with regions."""
    study = folder / "assets" / "tiny"
    tiny_vlm(family, study / "model")
    (folder / "workspace.yaml").write_text(
        "load_from:\n  - python_module: {module_name: latentlens_dag.definitions, location_name: latentlens-dag}\n"
    )
    (study / "corpus.txt").write_text("\n".join(SENTENCES) + "\n", encoding="utf-8")
    (study / "defs.yaml").write_text(TINY_STUDY.replace("SHARDS", str(shards)).replace("BATCHES", str(batches)))
    _tiny_pictures(study)
    return folder


def _tiny_pictures(study: Path) -> None:
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq
    from PIL import Image

    random = np.random.default_rng(0)
    (study / "pictures").mkdir(parents=True)
    rows = []
    for number in range(4):
        name, width = f"picture_{number}.png", 48 + 12 * number
        pixels = random.integers(0, 256, (60, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(study / "pictures" / name)
        common = {"file_name": name, "abstract_words": ["winter"], "mask": None}
        whole = {"x0": 0.0, "y0": 0.0, "x1": float(width), "y1": 60.0}
        part = {"x0": 4.0, "y0": 4.0, "x1": 40.0, "y1": 40.0}
        rows.append(
            {**common, **whole, "region_id": "0", "kind": "background", "name": "grass", "words": ["grass", "green"]}
        )
        rows.append({**common, **part, "region_id": "1", "kind": "object", "name": "dog", "words": ["dog", "brown"]})
    floats = [(name, pa.float32()) for name in ("x0", "y0", "x1", "y1")]
    strings = [(name, pa.string()) for name in ("file_name", "region_id", "kind", "name")]
    lists = [(name, pa.list_(pa.string())) for name in ("words", "abstract_words")] + [("mask", pa.list_(pa.int32()))]
    pq.write_table(pa.Table.from_pylist(rows, schema=pa.schema(strings + lists + floats)), study / "regions.parquet")
