"""The lenses, and the columns of every published table.

A table is described by an Arrow schema; writers cast to it and readers may rely on it. Ids are 64-bit hashes as 16
hexadecimal digits (`storage/hashing.py`), layers, ranks and indices are int32, boxes are float32 in pixels of the
original image, and columns that do not apply to a row are null.

Note: a `cosine` and a `logit` cannot be compared, so no column is called `score`.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import pyarrow as pa

Candidates = Literal["all", "shared"]
"""The tokens that a lens may answer with: all of the vocabulary, or those that the study's index has."""


class LensInfo(NamedTuple):
    """How tables, cards, figures and pages name a lens; its computation is in `study/lenses/`."""

    name: str
    """In the column `lens` and in asset keys."""
    title: str
    score: Literal["cosine", "logit"]
    """The column of NEIGHBORS that ranks its neighbors, higher first."""
    candidates: Candidates = "all"
    declared: str = ""
    """The lens of DECLARED_LENSES that this is with other candidates; empty where it is one of them."""

    @property
    def shared(self) -> LensInfo:
        """The same lens with the candidates that LatentLens has."""
        return LensInfo(f"{self.name}_shared", f"{self.title} (shared)", self.score, "shared", self.name)


LATENTLENS = "latentlens"
DECLARED_LENSES = {
    lens.name: lens
    for lens in (
        LensInfo(LATENTLENS, "LatentLens", "cosine", "shared"),
        LensInfo("logitlens", "LogitLens", "logit"),
        LensInfo("embeddinglens", "EmbeddingLens", "cosine"),
    )
}
"""The lenses that defs.yaml names. A new one is a line here and a module `study/lenses/<name>.py` with a class named as
its title."""
LENSES = {
    lens.name: lens
    for declared in DECLARED_LENSES.values()
    for lens in ([declared] if declared.candidates == "shared" else [declared, declared.shared])
}
"""All lenses by name, in the order of tables and pages. Answers from other candidates are those of another lens, so
that no join can mix them."""


def lens_title(lens: str) -> str:
    """The lens as people write it; a name that is not in LENSES stays as it is."""
    return LENSES[lens].title if lens in LENSES else lens


def lens_candidates(lens: str) -> Candidates | None:
    """The candidates of a lens; None for a name that is not in LENSES."""
    return LENSES[lens].candidates if lens in LENSES else None


def lens_order(lens: str) -> tuple[int, str]:
    """The key that sorts names of lenses: as in LENSES, others behind them by name."""
    return list(LENSES).index(lens) if lens in LENSES else len(LENSES), lens


_TOKEN = (("study", pa.string()), ("image_id", pa.string()), ("token_index", pa.int32()))
"""A visual token of an image; in a study of texts, `image_id` holds the text_id."""
_LAYER_AND_LENS = (("visual_layer", pa.int32()), ("lens", pa.string()))
_WORD = (("token_id", pa.int32()), ("token_str", pa.string()), ("word", pa.string()))
"""A token of the vocabulary, and the whole word around it."""
_CHARS = (("char_start", pa.int32()), ("char_end", pa.int32()))
"""Of the word in its sentence or text, in characters."""
_BOX = tuple((side, pa.float32()) for side in ("x0", "y0", "x1", "y1"))


def _schema(*columns: pa.Field | tuple[str, pa.DataType]) -> pa.Schema:
    return pa.schema(columns)


SENTENCES = _schema(("sentence_id", pa.string()), ("text", pa.string()))

OCCURRENCES = _schema(
    ("index", pa.string()),
    ("key", pa.string()),  # hash of the token prefix that ends with this token
    *_WORD,
    *_CHARS,
    ("position", pa.int32()),  # in real tokens (no specials, no padding), from 0
    ("sentence_id", pa.string()),
)

IMAGES = _schema(
    ("image_id", pa.string()),
    ("file_name", pa.string()),
    ("width", pa.int32()),
    ("height", pa.int32()),
    ("thumbnail", pa.binary()),  # WebP, at most 256 pixels a side
)

REGIONS = _schema(
    ("image_id", pa.string()),
    ("region_id", pa.string()),
    ("kind", pa.string()),  # object, background
    ("name", pa.string()),
    ("words", pa.list_(pa.string())),  # concrete: what one can see
    ("abstract_words", pa.list_(pa.string())),
    *_BOX,
    ("mask", pa.list_(pa.int32())),  # row-major run lengths, first the pixels outside; null: the box
)

CAPTIONS = _schema(
    ("image_id", pa.string()),
    ("caption_index", pa.int32()),  # from 0, in the order of the source
    ("caption", pa.string()),
    ("patches", pa.list_(pa.int32())),  # of which it is, numbered row by row; null of the whole image
    ("grid", pa.list_(pa.int32())),  # rows and columns of that numbering
)

VISUAL_TOKENS = _schema(
    *_TOKEN,
    ("view", pa.string()),  # global, tile, padding, newline, separator, unmapped; of a study of texts: text
    ("tile", pa.int32()),
    ("row", pa.int32()),
    ("col", pa.int32()),
    *_BOX,
)

PATCH_TRUTH = _schema(
    *_TOKEN,
    ("patch_group", pa.string()),  # object (at least half covered by objects), background, padding
    ("region_ids", pa.list_(pa.string())),  # the regions that the patch shows
    ("concrete_words", pa.list_(pa.string())),  # of these regions: what one can see
    ("abstract_words", pa.list_(pa.string())),  # of these regions
    ("global_words", pa.list_(pa.string())),  # concrete words of the image's other regions
)
"""What annotated regions show in each patch (`study/patch_truth.py`): tokens with a box, of images with a region."""

TEXTS = _schema(("text_id", pa.string()), ("text", pa.string()))

TEXT_TOKENS = _schema(
    *_TOKEN,
    ("position", pa.int32()),  # as in OCCURRENCES
    *_WORD,
    *_CHARS,
)

NEIGHBORS = _schema(
    *_TOKEN,
    *_LAYER_AND_LENS,
    ("rank", pa.int32()),  # 1 = nearest
    *_WORD,  # `word` of LatentLens is the whole word; else the vocabulary token, stripped
    ("contextual_layer", pa.int32()),
    ("key", pa.string()),
    ("sentence_id", pa.string()),
    ("position", pa.int32()),
    *_CHARS,
    ("cosine", pa.float32()),
    ("logit", pa.float32()),
)

JUDGEMENTS = _schema(
    *_TOKEN,
    *_LAYER_AND_LENS,
    ("judge", pa.string()),
    ("verdict", pa.string()),  # concrete, abstract, global, none: the first that holds
    ("words", pa.list_(pa.string())),  # the neighbors that earned it
    ("patch_group", pa.string()),  # object, background, padding
    ("chance_verdict", pa.string()),  # of the same neighbors, against another image's patch
    ("chance_counts", pa.list_(pa.int32())),  # of several such patches: concrete, abstract, global, none
    ("first_verdict", pa.string()),  # on the nearest neighbor alone
    ("first_chance_counts", pa.list_(pa.int32())),
)

HUMAN_JUDGEMENTS = _schema(
    *JUDGEMENTS,
    ("person", pa.string()),
    ("made", pa.string()),  # UTC, ISO 8601
    ("answers", pa.list_(pa.string())),  # the words that were shown, nearest first
)
"""Judgements by people (`dataset/human_judgements.py`); only in a home, and never made by a build."""

_LENS_OF_STUDY = (("study", pa.string()), ("lens", pa.string()), ("candidates", pa.string()))  # all, shared

CANDIDATES = _schema(("study", pa.string()), ("lens", pa.string()), ("token_id", pa.int32()))
"""The tokens that the lenses with shared candidates may answer with (`study/candidates.py`)."""

INTERPRETABILITY = _schema(
    *_LENS_OF_STUDY,
    ("visual_layer", pa.int32()),
    ("judge", pa.string()),
    ("patch_group", pa.string()),  # all, object, background; padding and sink, which are in no other
    ("k", pa.int32()),  # answers that were judged: 1 (the nearest), or all
    ("measure", pa.string()),  # interpretable, concrete, abstract, global
    ("tokens", pa.int32()),
    ("images", pa.int32()),
    ("effective_tokens", pa.float64()),  # so many independent tokens would give a share as sure
    ("share", pa.float64()),  # of the tokens, in 0..1
    ("low", pa.float64()),  # 95 % interval, with images as the units (study/intervals.py)
    ("high", pa.float64()),
    ("chance", pa.float64()),  # the share that the same answers reach on other images' patches of the same group
    ("chance_low", pa.float64()),
    ("chance_high", pa.float64()),
    ("excess", pa.float64()),  # (share - chance) / (1 - chance)
    ("excess_low", pa.float64()),
    ("excess_high", pa.float64()),
)

STUDY_CONNECTORS = _schema(
    ("study", pa.string()),
    ("connector", pa.string()),
    ("step", pa.int32()),  # of the connector's training; 0 is the untrained one
)
"""Which connector's model a study reads, of those that read one."""

CORPUS_ABLATION = _schema(
    ("study", pa.string()),
    ("fraction", pa.float64()),  # of the index's sentences
    ("occurrences", pa.int64()),  # of these sentences: vectors per contextual layer
    ("sentences", pa.int64()),  # that have any of them
    ("token_ids", pa.int64()),  # different ones
    *(field for field in INTERPRETABILITY if field.name not in ("study", "lens", "candidates")),
)
"""Of LatentLens, from parts of the index (`study/corpus_ablation.py`)."""

LENS_DIFFERENCES = _schema(
    ("comparison", pa.string()),  # lenses: of one layer; layers: of one lens, the other is the study's first
    ("judge", pa.string()),
    ("patch_group", pa.string()),  # all, object, background: without sinks and padding
    ("k", pa.int32()),  # answers that were judged: 1 (the nearest), or all; null for all of two studies
    ("measure", pa.string()),  # interpretable, concrete
    ("study", pa.string()),
    ("lens", pa.string()),
    ("visual_layer", pa.int32()),
    ("other_study", pa.string()),
    ("other_lens", pa.string()),
    ("other_visual_layer", pa.int32()),
    ("images", pa.int32()),
    ("tokens", pa.int64()),  # the same ones of both
    ("share", pa.float64()),
    ("other_share", pa.float64()),
    ("difference", pa.float64()),  # share - other_share
    ("low", pa.float64()),  # 95 % interval of the difference, with images as the units
    ("high", pa.float64()),
    ("p_value", pa.float64()),  # of a difference of 0: the two exchanged image by image
    ("adjusted_p_value", pa.float64()),  # Benjamini and Hochberg, over the family (study/differences.py)
)

LAYER_ALIGNMENT = _schema(
    ("study", pa.string()),
    ("visual_layer", pa.int32()),
    ("contextual_layer", pa.int32()),
    ("neighbors", pa.int64()),
    ("share", pa.float64()),  # of the visual layer's neighbors; a row sums to 1
    ("null_share", pa.float64()),  # of the answers to states with shuffled dimensions (study/null_answers.py)
    ("null_low", pa.float64()),  # 95 % interval of it, with images as the units
    ("null_high", pa.float64()),
    ("null_tokens", pa.int64()),  # of the visual layer, whose states were shuffled
)

DIVERSITY = _schema(
    *_LENS_OF_STUDY,
    ("visual_layer", pa.int32()),
    ("tokens", pa.int64()),
    ("images", pa.int32()),
    ("distinct_words", pa.float64()),  # mean over tokens: answers that match no nearer answer (text/inflection.py)
    ("low", pa.float64()),  # 95 % interval, with images as the units
    ("high", pa.float64()),
)

STATE_STATISTICS = _schema(
    ("study", pa.string()),
    ("source", pa.string()),  # visual, connector: of the study; contextual: of its index
    ("layer", pa.int32()),  # visual or contextual; null for the connector
    ("states", pa.int64()),
    ("norm_mean", pa.float64()),
    ("norm_low", pa.float64()),  # quantiles 5 %, 50 %, 95 %
    ("norm_median", pa.float64()),
    ("norm_high", pa.float64()),
    ("cosine_to_previous", pa.float64()),  # mean over tokens, with the study's layer before; null for the first
    ("cosine_to_first", pa.float64()),  # with the study's first layer
    ("norm_p99", pa.float64()),  # quantile 99 %
    ("norm_max", pa.float64()),
    ("sinks", pa.int64()),  # of the states; all that follows is without them
    ("dimensions", pa.int32()),  # of a state
    ("directions", pa.int64()),  # states that the next four are of: of the index's text a sample
    ("anisotropy", pa.float64()),  # mean cosine of two states of different images, texts or sentences
    ("top_dimension", pa.int32()),  # the one with the largest share of the squared length
    ("top_dimension_share", pa.float64()),  # mean over states
    ("top_10_share", pa.float64()),  # of the ten dimensions with the largest shares, together
    ("hub_tokens", pa.int64()),  # tokens that the hub is of: all visual tokens, a sample of the index's text
    ("first_answers", pa.int64()),  # different rows of the index among their first answers by LatentLens
    ("hub_share", pa.float64()),  # of the tokens whose first answer is the most frequent one, the hub
    ("hub_layer", pa.int32()),  # its contextual layer
    ("hub_key", pa.string()),
    ("hub_word", pa.string()),
)

SINKS = _schema(
    *_TOKEN,
    ("visual_layer", pa.int32()),
    ("norm", pa.float32()),
    ("sink_norm", pa.float32()),  # above which a state of this layer of the study is a sink (search/sinks.py)
)

CONNECTORS = _schema(
    ("connector", pa.string()),
    ("kind", pa.string()),  # mlp, linear
    ("seed", pa.int64()),
    ("steps", pa.int32()),
    ("images", pa.int32()),  # that were learned from
    ("language_model", pa.string()),
    ("vision_encoder", pa.string()),
    ("layer", pa.int32()),  # hidden state of the vision encoder that gives the features
    ("pool", pa.int32()),
    ("settings", pa.string()),  # all of the training, as JSON
)

LOSSES = _schema(
    ("connector", pa.string()),
    ("step", pa.int32()),  # from 1
    ("loss", pa.float32()),  # mean cross-entropy of the caption tokens, in nats
    ("learning_rate", pa.float32()),
    ("images", pa.int32()),
    ("caption_tokens", pa.int32()),
)

GENERATED_CAPTIONS = _schema(("study", pa.string()), ("image_id", pa.string()), ("caption", pa.string()))

CAPTION_OBJECTS = _schema(
    ("study", pa.string()),
    ("image_id", pa.string()),
    ("name", pa.string()),  # of regions of the image set
    ("kind", pa.string()),  # object, background
    ("present", pa.bool_()),  # in the image
    ("named", pa.bool_()),  # in its caption
)

CAPTION_SCORES = _schema(
    ("study", pa.string()),
    ("kind", pa.string()),  # all, object, background
    ("measure", pa.string()),  # recall, precision
    *((name, pa.float64()) for name in ("share", "low", "high", "chance", "chance_low", "chance_high")),
    ("images", pa.int32()),
    ("objects", pa.int32()),
)

TABLES = {
    "neighbors": NEIGHBORS,
    "visual_tokens": VISUAL_TOKENS,
    "patch_truth": PATCH_TRUTH,
    "judgements": JUDGEMENTS,
    "interpretability": INTERPRETABILITY,
    "lens_differences": LENS_DIFFERENCES,
    "study_connectors": STUDY_CONNECTORS,
    "corpus_ablation": CORPUS_ABLATION,
    "layer_alignment": LAYER_ALIGNMENT,
    "diversity": DIVERSITY,
    "candidates": CANDIDATES,
    "state_statistics": STATE_STATISTICS,
    "sinks": SINKS,
    "sentences": SENTENCES,
    "occurrences": OCCURRENCES,
    "images": IMAGES,
    "regions": REGIONS,
    "captions": CAPTIONS,
    "texts": TEXTS,
    "text_tokens": TEXT_TOKENS,
    "generated_captions": GENERATED_CAPTIONS,
    "caption_objects": CAPTION_OBJECTS,
    "caption_scores": CAPTION_SCORES,
    "connectors": CONNECTORS,
    "losses": LOSSES,
}
"""Every table by the name it has in SQL."""
