-- title: How much is interpretable, lens by layer
-- description: Per visual layer, the percentage of visual tokens that each lens makes interpretable, beside its chance level.
-- param study = null: only this study
-- param patch_group = all: all, object or background
-- param judge = null: only this judge
-- param measure = interpretable: interpretable or concrete
WITH shares AS (
    SELECT
        study,
        judge,
        visual_layer,
        lens,
        round(100 * if($measure = 'concrete', concrete, interpretable), 1) AS percent,
        round(100 * if($measure = 'concrete', concrete_chance, chance), 1) AS chance_percent
    FROM interpretability
    WHERE patch_group = $patch_group
        AND ($study IS NULL OR study = $study)
        AND ($judge IS NULL OR judge = $judge)
)
SELECT
    study,
    judge,
    visual_layer,
    first(percent) FILTER (lens = 'latentlens') AS latentlens,
    first(percent) FILTER (lens = 'logitlens') AS logitlens,
    first(percent) FILTER (lens = 'embeddinglens') AS embeddinglens,
    first(chance_percent) FILTER (lens = 'latentlens') AS latentlens_chance,
    first(chance_percent) FILTER (lens = 'logitlens') AS logitlens_chance,
    first(chance_percent) FILTER (lens = 'embeddinglens') AS embeddinglens_chance
FROM shares
GROUP BY study, judge, visual_layer
ORDER BY study, judge, visual_layer
