"""The lenses: what a visual token's state says, by three kinds of candidates.

| lens          | candidates                    | score                                                        |
|---------------|-------------------------------|--------------------------------------------------------------|
| EmbeddingLens | vocabulary                    | cosine to the rows of the input embedding                    |
| LogitLens     | vocabulary                    | logit: unembedding of the final norm, scaled and soft-capped |
| LatentLens    | (token in a sentence, layer)  | cosine to its state in a text-only pass                      |

(arXiv 2602.00462, section 3.1.) Each gives the k best, best first; equal scores go to the lower token id, or to the
lower (contextual layer, key). Cosines and logits cannot be compared. LatentLens may answer from any contextual layer,
whatever the visual layer.
"""
