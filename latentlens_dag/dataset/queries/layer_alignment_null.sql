-- title: Where the answers come from, beside a null
-- description: Per visual and contextual layer, the share of LatentLens answers, that of the answers to states with shuffled dimensions (which mean nothing) with its 95 % interval, and the difference.
-- param study = null: only this study
-- param layer = null: only this visual layer
SELECT
    study,
    visual_layer,
    contextual_layer,
    round(share, 4) AS share,
    round(null_share, 4) AS null_share,
    round(null_low, 4) AS null_low,
    round(null_high, 4) AS null_high,
    round(share - null_share, 4) AS difference,
    null_tokens
FROM layer_alignment
WHERE ($study IS NULL OR study = $study) AND ($layer IS NULL OR visual_layer = CAST($layer AS INTEGER))
ORDER BY study, visual_layer, contextual_layer
