-- title: How much is interpretable from smaller indexes
-- description: Per part of the index, the percentage of visual tokens that LatentLens makes interpretable from it, with the 95 % interval, beside its chance level and the number of vectors per contextual layer.
-- param study = null: only this study
-- param layer = null: only this visual layer
-- param patch_group = all: all, object, background, padding or sink
-- param judge = null: only this judge
-- param measure = interpretable: interpretable, concrete, abstract or global
-- param k = null: how many answers are judged: 1, the nearest alone, or by default all
SELECT
    study,
    judge,
    visual_layer,
    fraction,
    occurrences AS vectors_per_layer,
    sentences,
    round(100 * share, 1) AS percent,
    round(100 * low, 1) AS percent_low,
    round(100 * high, 1) AS percent_high,
    round(100 * chance, 1) AS chance_percent,
    images,
    tokens
FROM corpus_ablation
WHERE patch_group = $patch_group
    AND measure = $measure
    AND ($study IS NULL OR study = $study)
    AND ($judge IS NULL OR judge = $judge)
    AND ($layer IS NULL OR visual_layer = CAST($layer AS INTEGER))
    AND ($k IS NULL OR k = CAST($k AS INTEGER))
QUALIFY k = max(k) OVER (PARTITION BY study, judge)
ORDER BY study, judge, visual_layer, fraction
