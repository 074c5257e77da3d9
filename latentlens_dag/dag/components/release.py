"""The component Release: one published dataset, of the results of some studies or of one index.

Note: declaring a release publishes nothing. A build stages its folder, and only
`latentlens-dag publish`, or the asset `published` with the repository's name typed in, sends it to the Hub.
"""

# `from __future__ import annotations` is left out: Dagster resolves these annotations itself.
from collections.abc import Iterator
from typing import Literal

import dagster as dg

from latentlens_dag.dag.components.base import NamedComponent
from latentlens_dag.dag.components.studies import Index, Study
from latentlens_dag.dag.keys import DISABLED
from latentlens_dag.dag.specs import ReleaseSpec
from latentlens_dag.errors import UserError
from latentlens_dag.publish.about import About, check_license, check_repo_id


class Release(NamedComponent):
    """One dataset repository of the Hub, staged in the warehouse: the tables of studies, or an index."""

    studies: list[str] | None = None
    """Whose results are published."""
    index: str | None = None
    """In place of studies: an index to publish, for others to search."""
    repo_id: str
    """user/name on the Hub."""
    title: str | None = None
    description: str | None = None
    """Paragraphs for the card, as plain text."""
    license: str
    """Of the tables, by the Hub's names: apache-2.0, cc-by-4.0, other."""
    images: Literal["thumbnails", "none"] | None = None
    """Whether images are published as thumbnails; by default if `image_license` gives the terms."""
    image_license: str | None = None
    """Of the images, in words. Without it no image is published."""
    text_license: str | None = None
    """Of the sentences and texts, in words."""
    sentences: Literal["all", "cited", "none"] = "all"
    """Those of the corpora, only those that neighbors cite, or none."""
    vectors: bool = False
    """Of an index: whether its vectors are published as Parquet too, which about doubles its size."""

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Its assets; none if one of its studies is switched off."""
        from latentlens_dag.dag.assets.release import index_release, tables_release

        place = self.place(context)
        self.check_name(context)
        self._check(place)
        if self.index is not None:
            return index_release(self.spec, self.find(context, Index, self.index, "index").spec(context))
        studies = [self.find(context, Study, name, "studies") for name in self.studies or []]
        if not all(study.enabled for study in studies):
            return dg.Definitions(metadata={f"{DISABLED}release/{self.name}": True})
        return tables_release(self.spec, [study.spec(context) for study in studies])

    @property
    def spec(self) -> ReleaseSpec:
        """The release with its defaults filled in."""
        about = About(
            name=self.name,
            repo_id=self.repo_id,
            title=self.title or self.name.replace("_", " ").capitalize(),
            license=self.license,
            image_license=self.image_license,
            text_license=self.text_license,
            description=self.description,
        )
        thumbnails = self.images == "thumbnails" if self.images else self.image_license is not None
        return ReleaseSpec(about, thumbnails, self.sentences, self.vectors)

    def _check(self, place: str) -> None:
        """Refuse invalid values."""
        if (self.studies is None) == (self.index is None) or self.studies == []:
            raise UserError(
                f"{place} must say what goes out: `studies: [NAME, ...]`, the results of some studies, or "
                "`index: NAME`, and not both."
            )
        if len(set(self.studies or [])) < len(self.studies or []):
            raise UserError(f"`studies: {self.studies}` of {place} must name each study once.")
        check_repo_id(self.repo_id, place)
        check_license(self.license, place)
        for field in ("image_license", "text_license"):
            if (terms := getattr(self, field)) is not None and not terms.strip():
                raise UserError(f"`{field}` of {place} is empty. Write the terms in words, or leave it out.")
        for problem in self._conflicts():
            raise UserError(f"{place}: {problem}")

    def _conflicts(self) -> Iterator[str]:
        """The problems of fields that do not go together."""
        if self.images == "thumbnails" and self.image_license is None:
            yield (
                "`images: thumbnails` sends pictures out, so say under which terms: `image_license: TEXT`. Leave "
                "`images` out, or set it to none, to send none."
            )
        if self.index is None and self.vectors:
            yield "`vectors` belongs to a release of an `index`; results have none. Leave it out."
        if self.index is not None and (self.images is not None or self.image_license is not None):
            yield "`images` and `image_license` belong to a release of `studies`; an index has no pictures."
        if self.index is not None and self.sentences == "none":
            yield "`sentences: none` cannot be with `index`: its answers are words in sentences. Say all or cited."
