"""The path of every file of a warehouse; no other module spells one.

Note: never write to such a path directly, but through `storage/files.py`, which renames a complete file to it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Warehouse:
    """The folder `warehouse/` of a home, as paths.

    Partitions (shards, batches) are ints; layers are contextual or visual layer numbers.
    """

    root: Path

    def sentences(self, corpus: str) -> Path:
        """Parquet: every distinct sentence of the corpus (SENTENCES), in order of `sentence_id`."""
        return self.root / "corpus" / corpus / "sentences.parquet"

    def order(self, corpus: str) -> Path:
        """Parquet: the position of each distinct sentence in the source (inputs.texts.ORDER), in order of id."""
        return self.root / "corpus" / corpus / "order.parquet"

    def shard(self, corpus: str, shard: int) -> Path:
        """Parquet: the sentences of a shard (SENTENCES)."""
        return self.root / "corpus" / corpus / f"shard_{shard:02d}.parquet"

    def index(self, index: str) -> IndexPaths:
        """The folder of an index, as paths."""
        return IndexPaths(self.root / "index" / index)

    def candidates(self, index: str, shard: int) -> Path:
        """Parquet: the shard's candidates for the selection (OCCURRENCES or occurrences.IN_ORDER)."""
        return self.root / "index" / index / "candidates" / f"shard_{shard:02d}.parquet"

    def selection(self, index: str) -> Path:
        """Parquet: `sentence_id`, `key` of every selected occurrence of all shards."""
        return self.root / "index" / index / "selection.parquet"

    def occurrences(self, index: str, shard: int) -> Path:
        """Parquet: the selected occurrences of the shard (OCCURRENCES), in order of `key`."""
        return self.index(index).occurrences(shard)

    def layer_table(self, index: str, layer: int) -> Path:
        """Lance dataset: one row per occurrence, with its vector at this contextual layer."""
        return self.index(index).layer_table(layer)

    def fragments(self, index: str, layer: int, shard: int) -> Path:
        """JSON: the Lance fragments that a shard contributes to a layer table."""
        return self.root / "index" / index / "fragments" / f"layer_{layer:02d}" / f"shard_{shard:02d}.json"

    def originals(self, images: str) -> Path:
        """Folder: the images of a set whose source is a table, named by their ids, and names.parquet."""
        return self.root / "images" / images / "originals"

    def image_names(self, images: str) -> Path:
        """Parquet: id and name of every distinct image of a set whose source is a folder (inputs.images.NAMES)."""
        return self.root / "images" / images / "names.parquet"

    def pictures(self, images: str, batch: int) -> Path:
        """Parquet: the images of a batch (IMAGES)."""
        return self.root / "images" / images / f"batch_{batch:02d}.parquet"

    def regions(self, images: str, batch: int) -> Path:
        """Parquet: the annotated regions of a batch's images (REGIONS)."""
        return self.root / "images" / images / f"regions_{batch:02d}.parquet"

    def captions(self, images: str, batch: int) -> Path:
        """Parquet: the captions of a batch's images (CAPTIONS), in order of `image_id`, `caption_index`."""
        return self.root / "images" / images / f"captions_{batch:02d}.parquet"

    def features(self, features: str, batch: int) -> Path:
        """Safetensors: the features of a batch's images, in order of `image_id` (`training/feature_files.py`)."""
        return self.root / "features" / features / f"batch_{batch:02d}.safetensors"

    def frozen_parts(self, connector: str) -> Path:
        """Folder: what every checkpoint of a connector has in common: the weights of both frozen models."""
        return self.root / "connector" / connector / "frozen"

    def training_run(self, connector: str) -> Path:
        """Folder: the state of a training that has not ended."""
        return self.root / "connector" / connector / "run"

    def losses(self, connector: str) -> Path:
        """Parquet: the loss of every step of a connector's training (LOSSES)."""
        return self.root / "connector" / connector / "losses.parquet"

    def connector_facts(self, connector: str) -> Path:
        """Parquet: what a connector was trained with, in one row (CONNECTORS)."""
        return self.root / "connector" / connector / "connector.parquet"

    def connector_file(self, connector: str, step: int) -> Path:
        """Safetensors: the weights of a connector after so many steps alone (`training/connector_file.py`)."""
        return self.root / "connector" / connector / "weights" / f"S{step:06d}.safetensors"

    def checkpoint(self, connector: str, step: int) -> Path:
        """Folder: the model with the connector after so many steps, as transformers loads it."""
        return self.root / "connector" / connector / "checkpoint" / f"S{step:06d}"

    def texts(self, texts: str, batch: int) -> Path:
        """Parquet: the texts of a batch (TEXTS), in order of `text_id`."""
        return self.root / "texts" / texts / f"batch_{batch:02d}.parquet"

    def study(self, study: str) -> Path:
        """The folder of a study's results."""
        return self.root / "study" / study

    def visual(self, study: str, layer: int, batch: int) -> Path:
        """Lance dataset: the states of a batch's visual tokens at one visual layer."""
        return self.study(study) / "visual" / f"layer_{layer:02d}" / f"batch_{batch:02d}.lance"

    def connector(self, study: str, batch: int) -> Path:
        """Lance dataset: the connector's output for a batch's visual tokens, with the columns of `visual`."""
        return self.study(study) / "visual" / "connector" / f"batch_{batch:02d}.lance"

    def visual_tokens(self, study: str, batch: int) -> Path:
        """Parquet: the box of each visual token of a batch (VISUAL_TOKENS)."""
        return self.study(study) / "visual_tokens" / f"batch_{batch:02d}.parquet"

    def text_tokens(self, study: str, batch: int) -> Path:
        """Parquet: the tokens of a batch's texts (TEXT_TOKENS)."""
        return self.study(study) / "text_tokens" / f"batch_{batch:02d}.parquet"

    def patch_truth(self, study: str, batch: int) -> Path:
        """Parquet: what each patch of a batch shows (PATCH_TRUTH), in order of `image_id`, `token_index`."""
        return self.study(study) / "patch_truth" / f"batch_{batch:02d}.parquet"

    def chance_patches(self, study: str, batch: int) -> Path:
        """Parquet: the patch drawn for each patch of a batch, and what it shows (chance_patches.CHANCE_PATCHES)."""
        return self.study(study) / "chance_patches" / f"batch_{batch:02d}.parquet"

    def neighbors(self, study: str, lens: str, layer: int, batch: int) -> Path:
        """Parquet: the neighbors of one lens at one visual layer (NEIGHBORS)."""
        return self.study(study) / lens / f"layer_{layer:02d}" / f"batch_{batch:02d}.parquet"

    def judgements(self, study: str, layer: int, batch: int) -> Path:
        """Parquet: the verdicts on the neighbors of all lenses at one visual layer (JUDGEMENTS)."""
        return self.study(study) / "judgements" / f"layer_{layer:02d}" / f"batch_{batch:02d}.parquet"

    def ablation_neighbors(self, study: str, fraction: float, layer: int, batch: int) -> Path:
        """Parquet: LatentLens's neighbors (NEIGHBORS) from a part of the index."""
        layers = self.study(study) / "ablation_neighbors" / f"fraction_{fraction!r}"
        return layers / f"layer_{layer:02d}" / f"batch_{batch:02d}.parquet"

    def generated_captions(self, study: str, batch: int) -> Path:
        """Parquet: what the study's VLM says of a batch's images (GENERATED_CAPTIONS)."""
        return self.study(study) / "captions" / f"batch_{batch:02d}.parquet"

    def summary(self, study: str, table: str) -> Path:
        """Parquet: a summary of the whole study (`views.SUMMARIES`)."""
        return self.study(study) / f"{table}.parquet"

    def model_checks(self, study: str) -> Path:
        """JSON: the self-checks of the study's model."""
        return self.study(study) / "model_checks.json"

    def release(self, release: str) -> Path:
        """The folder of a staged release, with manifest.json."""
        return self.root / "release" / release

    def shape(self, kind: str, name: str) -> Path:
        """JSON: the shape of a set (`storage/shapes.py`); kind is images, texts, index, connector or study."""
        return self.root / kind / name / "shape.json"

    def split_input(self, kind: str, name: str, part: str) -> Path:
        """The path beside which a build splits the input of a step (`storage/split_input.py`)."""
        return self.root / kind / name / part

    def observed(self, name: str) -> Path:
        """JSON: sizes, times and hashes of a source's files at the last observation."""
        return self.root / "observed" / f"{name}.json"

    def catalog(self, study: str) -> Path:
        """DuckDB file: the study's tables, materialized."""
        return self.study(study) / "catalog.duckdb"


@dataclass(frozen=True)
class IndexPaths:
    """The paths of an index, in a warehouse or alone."""

    root: Path

    @property
    def shape(self) -> Path:
        """JSON: the index's shape; written last (`index/folder.py`)."""
        return self.root / "shape.json"

    @property
    def own_sentences(self) -> Path:
        """Parquet: the sentences (SENTENCES) of an index that stands alone."""
        return self.root / "sentences.parquet"

    def corpus_sentences(self, corpus: str) -> Path:
        """Parquet: the sentences (SENTENCES) of an index that lies in a warehouse."""
        return Warehouse(self.root.parent.parent).sentences(corpus)

    def occurrences(self, part: int) -> Path:
        """Parquet: the selected occurrences of a part (OCCURRENCES), in order of `key`."""
        return self.root / "occurrences" / f"shard_{part:02d}.parquet"

    def layer_table(self, layer: int) -> Path:
        """Lance dataset: one row per occurrence, with its vector at this contextual layer."""
        return self.root / f"layer_{layer:02d}.lance"
