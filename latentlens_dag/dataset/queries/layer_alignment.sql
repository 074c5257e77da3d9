-- title: Where the answers come from
-- description: Per visual layer (row), the share of LatentLens answers from each contextual layer (column); a row sums to 1.
-- param study = null: only this study
-- pivot: contextual_layer share
SELECT
    study,
    visual_layer,
    contextual_layer,
    round(share, 4) AS share
FROM layer_alignment
WHERE $study IS NULL OR study = $study
