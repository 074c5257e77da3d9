"""Fields of a defs.yaml that name data and models: sources of sentences, images and regions.

Note: values are checked, and that paths exist; nothing is opened or downloaded.
"""

# `from __future__ import annotations` is left out: Dagster resolves these annotations itself.
import os
import re
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, ClassVar

import dagster as dg

from latentlens_dag.errors import UserError
from latentlens_dag.hub.datasets import HubColumn
from latentlens_dag.hub.names import COMMIT, REPO_ID
from latentlens_dag.inputs.captions import CaptionColumn, CaptionFile, CaptionFolder, CaptionSource
from latentlens_dag.inputs.image_tables import ImageColumn
from latentlens_dag.inputs.texts import TextFile, TextSource
from latentlens_dag.models.configs import read_config
from latentlens_dag.models.model_ref import ModelRef
from latentlens_dag.storage.paths import refuse_address

LocalPath = Annotated[
    Path, dg.Resolver(lambda context, value: context.resolve_source_relative_path(value), model_field_type=str)
]
"""A path of the YAML, relative to its defs.yaml."""


class HubFields(dg.Model, dg.Resolvable):
    """A source of a defs.yaml that may be a dataset of the Hub."""

    hub: str | None = None
    """A dataset on the Hugging Face Hub, as user/dataset; `split`, `column` and `revision` say what of it is read."""
    config: str | None = None
    split: str | None = None
    revision: str | None = None
    """Of hub: the full commit, so that its content never changes."""
    column: str | None = None

    def kind(self, kinds: Iterable[str], place: str) -> str:
        """The one of these fields that is given; a UserError where it is not exactly one."""
        given = [kind for kind in kinds if getattr(self, kind) is not None]
        if len(given) != 1:
            raise UserError(
                f"`source` of {place} must be exactly one of {', '.join(kinds)}; it has "
                f"{', '.join(given) or 'none of them'}."
            )
        return given[0]

    def hub_column(self, dataset: str, example: str, place: str) -> HubColumn:
        """The column that is named; `dataset` is `hub`."""
        if not REPO_ID.fullmatch(dataset):
            raise UserError(f"`source.hub: {dataset}` of {place} is no dataset of the Hub: write it as user/dataset.")
        if not self.split or not self.column or not self.revision:
            raise UserError(
                f"`source` of {place}: say `split`, `column` and `revision` of {dataset}, as in "
                f"{{hub: {dataset}, split: train, column: {example}, revision: COMMIT}}."
            )
        revision = full_commit(self.revision, "source.revision", place)
        return HubColumn(dataset, self.config, self.split, self.column, revision)


class CorpusSource(HubFields):
    """Where sentences come from."""

    lines: LocalPath | None = None
    """A text file, one sentence per line, UTF-8; `.gz` is unpacked, here and below. Relative to the defs.yaml."""
    csv: LocalPath | None = None
    """A CSV file with a header; `column` names the texts."""
    jsonl: LocalPath | None = None
    """A file with one JSON object per line; `column` names the texts."""
    parquet: LocalPath | None = None
    """A Parquet file; `column` names the texts."""
    package: str | None = None
    """An installed Python package; `file` names a file of it. It is not imported."""
    file: str | None = None

    def text_source(self, place: str) -> TextSource:
        """The file or dataset, not opened; a UserError for invalid fields of `place`."""
        kind = self.kind(_KINDS, place)
        alone = [field for field in ("config", "split", "revision") if getattr(self, field) is not None]
        if self.hub is None and alone:
            raise UserError(f"`source` of {place}: `{alone[0]}` belongs to a dataset of the Hub, which `hub` names.")
        if self.hub is None:
            return self._file(kind, place)
        if self.file is not None:
            raise UserError(f"`source` of {place}: `file` is a file inside a `package`, and not of the Hub.")
        return self.hub_column(self.hub, "text", place)

    def _file(self, kind: str, place: str) -> TextFile:
        path = getattr(self, kind)
        if (kind == "package") != (self.file is not None):
            raise UserError(f"`source` of {place}: `package` and `file`, a file inside of it, go together.")
        if kind == "package":
            path = self._package_file(place)
            endings = path.name.removesuffix(".gz")
            kind = next((kind for kind, suffix in _SUFFIXES.items() if endings.endswith(suffix)), "lines")
        existing_file(path, f"source.{'file' if self.package else kind}", place)
        if (kind == "lines") == (self.column is not None):
            hint = "has lines, no columns: leave `column` out"
            hint = hint if self.column else "is a table: say its `column` of texts"
            raise UserError(f"`source` of {place}: {path.name} {hint}.")
        return TextFile(kind, path, self.column)  # type: ignore[arg-type]

    def _package_file(self, place: str) -> Path:
        package = find_spec(self.package) if _PACKAGE.fullmatch(self.package or "") else None  # type: ignore[arg-type]
        if package is None or not package.submodule_search_locations:
            raise UserError(
                f"`source.package: {self.package}` of {place} is no installed package: install it into this "
                "environment."
            )
        folder = Path(next(iter(package.submodule_search_locations))).resolve()
        path = (folder / str(self.file)).resolve()
        if not path.is_relative_to(folder):
            raise UserError(f"`source.file: {self.file}` of {place} is not inside the package {self.package}.")
        return path


_PACKAGE = re.compile(r"[A-Za-z_]\w*")  # no dots: to find a package within another one, that would be imported
_SUFFIXES = {"lines": ".txt", "csv": ".csv", "jsonl": ".jsonl", "parquet": ".parquet"}
_KINDS = (*_SUFFIXES, "package", "hub")


class ImageSource(HubFields):
    """Where images come from."""

    folder: LocalPath | None = None
    """A folder of images, with its subfolders. Relative to the defs.yaml, as the paths below."""
    parquet: LocalPath | None = None
    """A Parquet file; `column` names the images: bytes, or bytes and paths as the library `datasets` writes them."""
    name: str | None = None
    """Of parquet: the column of the images' names; by default their paths, or the numbers of rows."""

    def image_source(self, place: str) -> Path | ImageColumn | HubColumn:
        """The folder, file or dataset, not opened; a UserError for invalid fields of `place`."""
        kind = self.kind(_IMAGE_FIELDS, place)
        others = [field for fields in _IMAGE_FIELDS.values() for field in fields]
        for field in others:
            if getattr(self, field) is not None and field not in _IMAGE_FIELDS[kind]:
                raise UserError(f"`source` of {place}: `{field}` does not belong to `{kind}`. Leave it out.")
        if self.hub is not None:
            return self.hub_column(self.hub, "image", place)
        path = getattr(self, kind)
        if self.parquet is None:
            return existing_folder(path, "source.folder", place)
        existing_file(path, "source.parquet", place)
        if not self.column:
            raise UserError(f"`source` of {place}: {path.name} is a table: say its `column` of pictures.")
        return ImageColumn(path, self.column, self.name)


_IMAGE_FIELDS = {
    "folder": (),
    "parquet": ("column", "name"),
    "hub": ("config", "split", "column", "revision"),
}
"""The kinds of image sources, and the fields of each."""


class RegionSource(dg.Model, dg.Resolvable):
    """Where annotated regions come from."""

    masks: LocalPath
    """A Parquet file: file_name, region_id, kind, name, words, abstract_words, x0, y0, x1, y1, mask."""


class CaptionsSource(dg.Model, dg.Resolvable):
    """Where captions of images come from."""

    folder: LocalPath | None = None
    """A folder with a/b.txt for the picture a/b.png, a caption on each line; it may be that of the pictures."""
    jsonl: LocalPath | None = None
    """A file with one JSON object per line: the name of a picture, and a caption or a list of them."""
    parquet: LocalPath | None = None
    """A Parquet file with the same columns."""
    name: str | None = None
    """Of jsonl and parquet: the column of the pictures' names, `file_name` by default."""
    column: str | None = None
    """The column of captions, `caption` by default; by itself, of the table or dataset that the pictures come from."""
    patches: str | None = None
    """Of jsonl and parquet: the column with the numbers of the patches that a caption is about; with `grid`."""
    grid: list[int] | None = None
    """Rows and columns of the patches, which are numbered row by row from 0."""

    def caption_source(self, images: Path | ImageColumn | HubColumn, place: str) -> CaptionSource:
        """The folder, file or column, not opened; a UserError for invalid fields of `place`."""
        given = [kind for kind in ("folder", "jsonl", "parquet") if getattr(self, kind) is not None]
        if len(given) > 1:
            raise UserError(
                f"`captions` of {place} must be one of folder, jsonl and parquet; it has {', '.join(given)}."
            )
        if not given:
            return self._column_beside(images, place)
        kind, path = given[0], getattr(self, given[0])
        if kind == "folder":
            others = [field for field in ("name", "column", "patches", "grid") if getattr(self, field) is not None]
            if others:
                raise UserError(f"`captions` of {place}: `{others[0]}` does not belong to `folder`. Leave it out.")
            return CaptionFolder(existing_folder(path, "captions.folder", place))
        existing_file(path, f"captions.{kind}", place)
        if (self.patches is None) != (self.grid is None) or (
            self.grid is not None and (len(self.grid) != 2 or min(self.grid) < 1)
        ):
            raise UserError(
                f"`captions` of {place}: `patches`, the column with the numbers of patches, and `grid`, their rows and "
                "columns such as [12, 12], go together."
            )
        names = (self.name or "file_name", self.column or "caption")
        grid = None if self.grid is None else tuple(self.grid)
        return CaptionFile(kind, path, *names, self.patches, grid)  # type: ignore[arg-type]

    def _column_beside(self, images: Path | ImageColumn | HubColumn, place: str) -> CaptionColumn:
        if self.column is None or any(one is not None for one in (self.name, self.patches, self.grid)):
            raise UserError(
                f"`captions` of {place} must be one of `folder`, `jsonl` and `parquet`, or `column` alone, of the "
                "table that the pictures come from."
            )
        if isinstance(images, Path):
            raise UserError(
                f"`captions.column: {self.column}` of {place} is of the table that pictures come from, but its "
                "`source` is a folder. Name the file of captions (`jsonl` or `parquet`), or a `folder` of texts."
            )
        return CaptionColumn(images, self.column)


class ModelSource(dg.Model, dg.Resolvable):
    """A model: a local folder, or one of the Hub."""

    path: LocalPath | None = None
    """Relative to the defs.yaml."""
    hub: str | None = None
    """A model on the Hugging Face Hub, as user/name. It is downloaded when a step first needs it."""
    revision: str | None = None
    """Of hub: the full commit, so that its content never changes."""
    trust_remote_code: bool = False
    """Run the code that comes with the model, with all your rights. Without it, a model that needs its own code is
    refused, and none of its code is run."""
    other_forms: ClassVar[str] = ""
    """How else a model may be named, for messages."""

    def model_ref(self, field: str, place: str) -> ModelRef:
        """The model; a UserError for invalid values of `field` of `place`."""
        if (self.path is None) == (self.hub is None):
            raise UserError(
                f"`{field}` of {place} must name one model: `{field}: {{path: FOLDER}}` or `{field}: {{hub: "
                f"USER/NAME, revision: COMMIT}}`{self.other_forms}."
            )
        if self.hub is not None:
            return self._hub_model(self.hub, field, place)
        if self.revision is not None:
            raise UserError(f"`{field}` of {place}: `revision` belongs to a model of the Hub, which `hub` names.")
        path = existing_path(self.path, f"{field}.path", place)  # type: ignore[arg-type]
        read_config(path)
        return ModelRef(path=path, trust_remote_code=self.trust_remote_code)

    def _hub_model(self, repo: str, field: str, place: str) -> ModelRef:
        if not REPO_ID.fullmatch(repo):
            raise UserError(f"`{field}.hub: {repo}` of {place} is no model of the Hub: write it as user/name.")
        if not self.revision:
            raise UserError(f"`{field}` of {place}: say the `revision` of {repo}, {{hub: {repo}, revision: COMMIT}}.")
        commit = full_commit(self.revision, f"{field}.revision", place)
        return ModelRef(repo=repo, revision=commit, trust_remote_code=self.trust_remote_code)


class VlmSource(ModelSource):
    """A VLM: a model as others, or one that a connector of this project is trained for."""

    connector: str | None = None
    """The name of a Connector, in place of `path` and `hub`."""
    step: int | None = None
    """Of connector: after how many steps, which must be among those that it keeps; by default the last."""
    other_forms: ClassVar[str] = " or `vlm: {connector: NAME}`"

    def check_connector(self, place: str) -> None:
        """Refuse fields that do not go together; a UserError for `vlm` of `place`."""
        others = ("path", "hub", "revision", "trust_remote_code")
        given = [field for field in others if getattr(self, field) not in (None, False)]
        if self.connector is None and self.step is not None:
            raise UserError(
                f"`vlm.step: {self.step}` of {place} is of a connector, which `vlm` does not name. Write `vlm: "
                f"{{connector: NAME, step: {self.step}}}`, or leave `step` out."
            )
        if self.connector is not None and given:
            raise UserError(
                f"`vlm` of {place} names the connector {self.connector}, whose checkpoints this project makes, and "
                f"`{given[0]}`, which is of another model. Leave one of them out."
            )


def existing_path(path: Path, field: str, place: str) -> Path:
    """A path of the YAML, which must exist and may be read."""
    refuse_address(path, f"{field}:", f"It stands in {place}: name a file or folder of this machine, or use `hub`.")
    try:
        path.stat()
    except OSError as error:
        link = f"is a link to {path.readlink()}, which " if os.path.islink(path) else ""  # noqa: PTH114 - never raises
        reason = "does not exist" if isinstance(error, FileNotFoundError) or link else f"is no path ({error.strerror})"
        raise UserError(
            f"`{field}` of {place}: {path!s:.300} {link}{reason}. Paths are relative to the defs.yaml."
        ) from error
    if not os.access(path, os.R_OK | (os.X_OK if path.is_dir() else 0)):
        raise UserError(f"`{field}` of {place}: {path} may not be read. Correct its permissions.")
    return path


def existing_file(path: Path, field: str, place: str) -> Path:
    """A path of the YAML, which must be a file."""
    if not existing_path(path, field, place).is_file():
        kind = "is a folder" if path.is_dir() else "is no regular file"
        raise UserError(f"`{field}` of {place}: {path} {kind}, and a file is read. Name one.")
    return path


def existing_folder(path: Path, field: str, place: str) -> Path:
    """A path of the YAML, which must be a folder."""
    if not existing_path(path, field, place).is_dir():
        raise UserError(f"`{field}` of {place}: {path} is no folder, and a folder of files is read. Name one.")
    return path


def full_commit(revision: str, field: str, place: str) -> str:
    """A revision of the YAML, which must be a full commit."""
    if not COMMIT.fullmatch(revision):
        raise UserError(
            f"`{field}: {revision}` of {place} is no full commit. Branches and tags move, and short commits may become "
            "ambiguous: write the 40 hexadecimal digits that the Hub shows under `History` of the files."
        )
    return revision
