"""`shape.json`: the parts that an image set, a text set, an index or a study has now, in one model per kind.

Files of partitions, layers and lenses that a set no longer has may lie beside those that it has. Readers skip every
file that the shape does not list, so that nothing needs to be deleted when a set shrinks.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, NonNegativeInt, ValidationError

from latentlens_dag.errors import UserError
from latentlens_dag.schema import LATENTLENS, LENSES
from latentlens_dag.storage.files import write_json
from latentlens_dag.storage.warehouse import Warehouse

INDEX_FORMAT = 1
"""Of an index's folder; raised where older versions of this package would misread it."""

_JUDGED = ("patch_truth", "chance_patches", "judgements", "interpretability", "lens_differences")
"""Of a study, what only one that is judged has."""

_CAPTIONS = ("captions", "caption_objects", "caption_scores")

S = TypeVar("S", bound="Shape")


class Shape(BaseModel):
    """What all kinds have in common; fields that a later version adds are skipped."""

    model_config = ConfigDict(strict=True, frozen=True)

    parts: NonNegativeInt
    """Batches or shards."""

    def to_json(self) -> dict[str, Any]:
        """The stored form, without fields that do not apply."""
        return self.model_dump(mode="json", exclude_none=True)

    def write(self, path: Path) -> None:
        """Write the file, unless it has this content already."""
        write_json(self.to_json(), path)

    def lists(self, file: Path) -> bool:
        """Whether a file (relative to the set's folder) belongs to a part that the set still has."""
        part = re.search(r"(?:batch|shard|regions|captions)_(\d+)\.parquet$", file.name)
        return part is None or int(part[1]) < self.parts


class TextSetShape(Shape):
    """A set of texts."""


class ImageSetShape(Shape):
    """A set of images."""

    regions: Literal[False] | None = None
    """False where none are declared."""
    captions: Literal[True] | None = None
    """True where some are declared."""

    def lists(self, file: Path) -> bool:  # noqa: D102
        return (
            super().lists(file)
            and (self.regions is None or not file.name.startswith("regions_"))
            and (self.captions is not None or not file.name.startswith("captions_"))
        )


def _one_name(name: str) -> str:
    if Path(name).name != name:  # the shape of a stranger's index must not lead out of its folder
        raise ValueError(f"{name!r} is no plain name")
    return name


Name = Annotated[str, AfterValidator(_one_name)]


class IndexShape(Shape):
    """An index, in a warehouse or alone."""

    format: int = INDEX_FORMAT
    layers: Annotated[list[int], AfterValidator(sorted)]
    """Contextual layers."""
    language_model: str
    """What a person calls it."""
    corpus: Name | None = None
    """Of an index in a warehouse, whose sentences lie with the corpus."""
    rows: dict[int, int] | None = None
    """Rows per layer, of an index that stands alone; in a warehouse every layer has all occurrences."""
    source: str | None = None
    """What the index was imported from."""
    dtype: str | None = None
    """In which the language model computed its states, of an index that stands alone; None where that is not known, and
    in a warehouse, where this file is older than the states, and their tables tell."""


class StudyShape(Shape):
    """A study; the last of its steps adds `index` and `model`, which homes of version 0.1 lack."""

    visual_layers: list[int]
    lenses: list[str]
    judged: bool = True
    corpus_ablation: Literal[True] | None = None
    """True where LatentLens answers from parts of the index, too."""
    captions: Literal[True] | None = None
    """True where the model's own captions are stored."""
    of: Literal["texts"] | None = None
    """None for a study of images."""
    connector: Name | None = None
    """Whose model it reads; None where the model is not made by the project."""
    step: NonNegativeInt | None = None
    """Of connector: after how many steps of its training."""
    index: Name | None = None
    model: dict[str, Any] | None = None
    """As `ModelRef.to_json` gives it; the path of a model of the warehouse itself is relative to that."""
    model_in_project: str | None = None
    """The folder of a model in the home's own project, relative to the warehouse."""
    dtype: str | None = None
    """In which the model computed its states; None where that is not known."""

    def lists(self, file: Path) -> bool:  # noqa: D102
        table, layer = file.parts[0].removesuffix(".parquet"), re.search(r"/layer_(\d+)/", file.as_posix())
        lens = LATENTLENS if table == "layer_alignment" else table
        return (
            super().lists(file)
            and (layer is None or int(layer[1]) in self.visual_layers)
            and (lens not in LENSES or lens in self.lenses)
            and (self.judged or table not in _JUDGED)
            and (table != "corpus_ablation" or self.corpus_ablation is not None)
            and (table != "study_connectors" or self.connector is not None)
            and (table not in _CAPTIONS or self.captions is not None)
            and (table != "text_tokens" or self.of == "texts")
            and (table != "candidates" or any(lens in LENSES and LENSES[lens].declared for lens in self.lenses))
        )


KINDS: dict[str, type[Shape]] = {
    "images": ImageSetShape,
    "texts": TextSetShape,
    "index": IndexShape,
    "study": StudyShape,
}
"""By the folder of the warehouse in which sets of the kind lie."""


def read_shape(kind: type[S], path: Path) -> S | None:
    """A set's shape; None where there is no file.

    Raises:
        UserError: where the file is damaged.
    """
    if not path.is_file():
        return None
    try:
        return kind.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise UserError(
            f"{path} is damaged ({problem_text(error)}). Run `latentlens-dag check --deep`, which finds what else is, "
            "then `latentlens-dag build`."
        ) from error


def stored_dtype(path: Path) -> str | None:
    """The dtype in a study's shape; None where there is no such file, or a damaged one that will be written anew."""
    try:
        shape = read_shape(StudyShape, path)
    except UserError:
        return None
    return None if shape is None else shape.dtype


def problem_text(error: ValidationError) -> str:
    """The first thing that is wrong with some JSON, in words: `layers.0: Input should be a valid integer`."""
    first = error.errors(include_url=False)[0]
    place = ".".join(map(str, first["loc"]))
    return f"{place}: {first['msg']}" if place else first["msg"]


def study_shape(warehouse: Warehouse, study: str) -> StudyShape:
    """The shape of a study.

    Raises:
        UserError: where the study is not built, or its shape is damaged.
    """
    shape = read_shape(StudyShape, warehouse.shape("study", study))
    if shape is None:
        raise UserError(f"Study {study} is not built yet: run `latentlens-dag build {study}`.")
    return shape
