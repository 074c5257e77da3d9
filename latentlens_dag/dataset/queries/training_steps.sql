-- title: How much is interpretable as a connector learns
-- description: Per connector and lens, the percentage of visual tokens that is interpretable at each visual layer after so many steps of the training, with the 95 % interval, beside its chance level. Step 0 is the untrained connector. Only of studies that read a connector's model and have a judge.
-- param connector = null: only this connector
-- param lens = null: only this lens
-- param layer = null: only this visual layer
-- param patch_group = all: all, object, background, padding or sink
-- param judge = null: only this judge
-- param measure = interpretable: interpretable, concrete, abstract or global
-- param k = null: how many answers are judged: 1, the nearest alone, or by default all
SELECT
    connector,
    lens,
    visual_layer,
    step,
    study,
    judge,
    k,
    round(100 * share, 1) AS percent,
    round(100 * low, 1) AS percent_low,
    round(100 * high, 1) AS percent_high,
    round(100 * chance, 1) AS chance_percent,
    round(100 * chance_low, 1) AS chance_low,
    round(100 * chance_high, 1) AS chance_high,
    images,
    tokens
FROM interpretability
JOIN study_connectors USING (study)
WHERE patch_group = $patch_group
    AND measure = $measure
    AND ($connector IS NULL OR connector = $connector)
    AND ($lens IS NULL OR lens = $lens)
    AND ($layer IS NULL OR visual_layer = CAST($layer AS INTEGER))
    AND ($judge IS NULL OR judge = $judge)
    AND ($k IS NULL OR k = CAST($k AS INTEGER))
QUALIFY k = max(k) OVER (PARTITION BY study, judge)
ORDER BY connector, lens, visual_layer, step, study, judge
