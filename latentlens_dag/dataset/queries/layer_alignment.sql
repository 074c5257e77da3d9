-- title: Where the answers come from
-- description: Per visual layer (row), the share of LatentLens answers from each contextual layer (column); a row sums to 1. Then, as 8_null_share, the same of a null (answers to states that mean nothing) with its 95 % interval.
-- param study = null: only this study
-- pivot: contextual_layer share null_share null_low null_high
SELECT
    study,
    visual_layer,
    contextual_layer,
    round(share, 4) AS share,
    round(null_share, 4) AS null_share,
    round(null_low, 4) AS null_low,
    round(null_high, 4) AS null_high
FROM layer_alignment
WHERE $study IS NULL OR study = $study
