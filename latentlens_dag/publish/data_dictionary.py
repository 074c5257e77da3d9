"""What the columns of a release hold, in a line each: the features of its card."""

from __future__ import annotations

from collections.abc import Sequence

from latentlens_dag.schema import LENSES

TABLE_TITLES = {
    "neighbors": "one row per answer: what a lens says of a visual token",
    "visual_tokens": "one row per visual token: where it lies in its image",
    "patch_truth": "one row per patch of an annotated image: what the regions show there",
    "judgements": "one row per visual token, layer, lens and judge: whether the answers fit what is there",
    "interpretability": "shares of tokens by lens, layer, patch group, k and measure, with intervals and chance",
    "lens_differences": "differences of these shares between lenses, and between layers, on the same patches",
    "corpus_ablation": "shares of tokens that LatentLens makes interpretable from parts of its index, by size",
    "layer_alignment": "from which contextual layers the answers of each visual layer come",
    "diversity": "how many different words the answers of a token are",
    "state_statistics": "lengths of the states at each layer, and how far a token's state turns from layer to layer",
    "sinks": "one row per visual token and layer whose state is an attention sink: its norm is an outlier",
    "sentences": "the sentences that answers come from",
    "occurrences": "one row per token of a sentence that the index keeps",
    "images": "one row per image, with a thumbnail where its licence allows that",
    "regions": "annotated regions of the images: what is to be seen where",
    "texts": "one row per text that was read",
    "text_tokens": "one row per token of a text: what it is",
}
"""What every table is."""


def _listed(names: Sequence[str], conjunction: str) -> str:
    return f" {conjunction} ".join(part for part in (", ".join(names[:-1]), names[-1]) if part)


def _lenses_with(score: str) -> str:
    return _listed([lens.title for lens in LENSES.values() if lens.score == score], "and")


COLUMNS = {
    "study": "name of the study",
    "image_id": "64-bit hash of the picture (of a study of texts: of the text), 16 hexadecimal digits",
    "token_index": "number of the token in its image or text, from 0",
    "visual_layer": "the block that the token's state enters; 0 is what the language model is given",
    "lens": _listed(list(LENSES), "or"),
    "rank": "1 is the nearest",
    "token_id": "number of the answer in the vocabulary",
    "token_str": "the vocabulary token itself",
    "word": "the whole word around the token, or the token itself where a script has no spaces between words; of the "
    "vocabulary lenses the token without blanks",
    "contextual_layer": "the layer of the text's state; null where no text was read",
    "key": "64-bit hash of the text up to this token, which names the occurrence",
    "sentence_id": "64-bit hash of the sentence; its text is in sentences",
    "position": "which real token of its sentence it is, from 0",
    "char_start": "where the word begins, in characters",
    "char_end": "where the word ends, in characters",
    "cosine": f"of {_lenses_with('cosine')}; cannot be compared with a logit",
    "logit": f"of {_lenses_with('logit')}; cannot be compared with a cosine",
    "view": "global (the whole image), tile, padding (outside of the image), newline, separator or unmapped; text of a "
    "study of texts",
    "tile": "which tile of the image, from 0",
    "row": "row of the patch in its view, from 0",
    "col": "column of the patch in its view, from 0",
    "x0": "left edge in pixels of the original image; null where it has no place",
    "y0": "upper edge in pixels of the original image",
    "x1": "right edge in pixels of the original image",
    "y1": "lower edge in pixels of the original image",
    "region_ids": "the regions that the patch shows",
    "concrete_words": "what one can see in the regions that the patch shows",
    "global_words": "what one can see in the image's other regions",
    "judge": "who judged",
    "verdict": "concrete, abstract, global or none: the first that holds",
    "words": "of a judgement the answers that earned it; of a region what one can see there",
    "patch_group": "object (at least half covered by objects), background, all of both; or one of its own: padding "
    "(outside of the image) or sink",
    "chance_verdict": "the verdict on the same answers against another image's patch of the same group",
    "chance_counts": "against how many of several such patches the verdict is concrete, abstract, global, none",
    "first_verdict": "the verdict on the nearest answer alone",
    "first_chance_counts": "chance_counts of the nearest answer alone",
    "k": "how many answers were judged: 1, the nearest alone, or all of the study",
    "measure": "concrete, abstract or global: the share of tokens with this verdict; interpretable: all three, as in "
    "the paper",
    "tokens": "how many visual tokens were counted",
    "images": "how many images they are of",
    "effective_tokens": "so many independent tokens would give a share as sure; null for fewer than two images",
    "low": "lower end of the 95 % interval of the share (or difference), over images; null for fewer than two images",
    "high": "upper end of it",
    "chance": "the share that the same answers reach on other images' patches of the same group",
    "chance_low": "lower end of the 95 % interval of chance",
    "chance_high": "upper end of it",
    "excess": "(share - chance) / (1 - chance): 0 at chance level, 1 where every token is a hit",
    "excess_low": "lower end of the 95 % interval of excess",
    "excess_high": "upper end of it",
    "fraction": "the part of the index's sentences that LatentLens answers from; smaller parts lie in larger ones",
    "occurrences": "how many occurrences that part has: vectors per contextual layer",
    "sentences": "how many sentences they are of",
    "token_ids": "how many different tokens of the vocabulary they are",
    "neighbors": "how many answers come from this contextual layer",
    "share": "of the tokens, 0 to 1; in layer_alignment of the visual layer's answers, where those of a layer sum to 1",
    "comparison": "lenses: two at one visual layer; layers: a lens at one, and at the study's first one",
    "other_study": "the study that is compared with; in a release the same",
    "other_lens": "the lens that is compared with",
    "other_visual_layer": "the visual layer that is compared with",
    "other_share": "the share of the lens, at the layer, that is compared with, of the same tokens",
    "difference": "share - other_share",
    "p_value": "how often the difference is as large if the two are exchanged image by image at random",
    "adjusted_p_value": "Benjamini and Hochberg's, over the tests of one comparison, judge, patch group, k and measure",
    "distinct_words": "mean over tokens: answers that match no nearer answer",
    "source": "whose states: visual tokens, the connector's output, or the index's text tokens (contextual)",
    "layer": "the visual or the contextual layer; null of the connector",
    "states": "how many states were measured",
    "norm_mean": "mean length of the states",
    "norm_low": "5 % of the states are shorter",
    "norm_median": "half of the states are shorter",
    "norm_high": "95 % of the states are shorter",
    "cosine_to_previous": "mean over tokens: cosine with the same token's state at the study's layer before",
    "cosine_to_first": "mean over tokens: cosine with the same token's state at the study's first layer",
    "norm": "length of the token's state",
    "sink_norm": "the norm above which a state of this layer counts as a sink",
    "text": "the text itself",
    "index": "name of the index",
    "file_name": "name of the picture in its source",
    "width": "of the original picture, in pixels",
    "height": "of the original picture, in pixels",
    "thumbnail": "WebP of at most 256 pixels a side; null where pictures were not released",
    "region_id": "number of the region in its image",
    "kind": "object or background",
    "name": "what the region is called",
    "abstract_words": "words that fit without naming what one sees",
    "mask": "row-major run lengths, first of the pixels outside; null: the whole box",
    "text_id": "64-bit hash of the text, 16 hexadecimal digits",
}
"""What every column holds, by its name, which means the same in all tables but where the line says otherwise."""
