-- title: How much is interpretable, lens by layer
-- description: Per visual layer, the percentage of visual tokens that each lens makes interpretable, beside its chance level.
-- param study = null: only this study
-- param patch_group = all: all, object, background, padding or sink
-- param judge = null: only this judge
-- param measure = interpretable: interpretable, concrete, abstract or global
-- param k = null: how many answers are judged: 1, the nearest alone, or by default all
WITH shares AS (
    SELECT
        study,
        judge,
        visual_layer,
        lens,
        round(100 * share, 1) AS percent,
        round(100 * chance, 1) AS chance_percent
    FROM interpretability
    WHERE patch_group = $patch_group
        AND measure = $measure
        AND ($study IS NULL OR study = $study)
        AND ($judge IS NULL OR judge = $judge)
        AND ($k IS NULL OR k = CAST($k AS INTEGER))
    -- A release of version 0.1 does not say of how many answers its shares are.
    QUALIFY coalesce(k, 0) = max(coalesce(k, 0)) OVER (PARTITION BY study, judge)
)
SELECT
    study,
    judge,
    visual_layer,
    first(percent) FILTER (lens = 'latentlens') AS latentlens,
    first(percent) FILTER (lens = 'logitlens') AS logitlens,
    first(percent) FILTER (lens = 'logitlens_shared') AS logitlens_shared,
    first(percent) FILTER (lens = 'embeddinglens') AS embeddinglens,
    first(percent) FILTER (lens = 'embeddinglens_shared') AS embeddinglens_shared,
    first(chance_percent) FILTER (lens = 'latentlens') AS latentlens_chance,
    first(chance_percent) FILTER (lens = 'logitlens') AS logitlens_chance,
    first(chance_percent) FILTER (lens = 'logitlens_shared') AS logitlens_shared_chance,
    first(chance_percent) FILTER (lens = 'embeddinglens') AS embeddinglens_chance,
    first(chance_percent) FILTER (lens = 'embeddinglens_shared') AS embeddinglens_shared_chance
FROM shares
GROUP BY study, judge, visual_layer
ORDER BY study, judge, visual_layer
