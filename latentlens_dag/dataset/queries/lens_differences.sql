-- title: Which lens says more, and at which layer
-- description: By how many percentage points two lenses (or a layer of a lens and the study's first one) differ on the same patches, with the 95 % interval and p-values, adjusted over the rows of a study and judge.
-- param study = null: only this study
-- param comparison = lenses: lenses or layers
-- param patch_group = all: all, object or background
-- param judge = null: only this judge
-- param measure = interpretable: interpretable, concrete, abstract or global
-- param k = null: how many answers are judged: 1, the nearest alone, or by default all
SELECT
    study,
    judge,
    lens,
    other_lens,
    visual_layer,
    other_visual_layer,
    round(100 * share, 1) AS percent,
    round(100 * other_share, 1) AS other_percent,
    round(100 * difference, 1) AS points,
    round(100 * low, 1) AS points_low,
    round(100 * high, 1) AS points_high,
    p_value,
    adjusted_p_value,
    images,
    tokens
FROM lens_differences
WHERE comparison = $comparison
    AND patch_group = $patch_group
    AND measure = $measure
    AND ($study IS NULL OR study = $study)
    AND ($judge IS NULL OR judge = $judge)
    AND ($k IS NULL OR k = CAST($k AS INTEGER))
QUALIFY k = max(k) OVER (PARTITION BY study, judge)
ORDER BY study, judge, lens, other_lens, visual_layer
