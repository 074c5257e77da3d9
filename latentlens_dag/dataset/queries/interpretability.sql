-- title: How much is interpretable, lens by layer
-- description: Per visual layer, the percentage of visual tokens that each lens makes interpretable, beside its chance level; then 95 % intervals, the excess over chance, images and effective patches.
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
        round(100 * chance, 1) AS chance_percent,
        round(100 * low, 1) AS low,
        round(100 * high, 1) AS high,
        round(100 * chance_low, 1) AS chance_low,
        round(100 * chance_high, 1) AS chance_high,
        round(100 * excess, 1) AS excess,
        round(100 * excess_low, 1) AS excess_low,
        round(100 * excess_high, 1) AS excess_high,
        images,
        round(effective_tokens, 1) AS effective_tokens
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
    first(chance_percent) FILTER (lens = 'embeddinglens_shared') AS embeddinglens_shared_chance,
    first(low) FILTER (lens = 'latentlens') AS latentlens_low,
    first(high) FILTER (lens = 'latentlens') AS latentlens_high,
    first(chance_low) FILTER (lens = 'latentlens') AS latentlens_chance_low,
    first(chance_high) FILTER (lens = 'latentlens') AS latentlens_chance_high,
    first(excess) FILTER (lens = 'latentlens') AS latentlens_excess,
    first(excess_low) FILTER (lens = 'latentlens') AS latentlens_excess_low,
    first(excess_high) FILTER (lens = 'latentlens') AS latentlens_excess_high,
    first(images) FILTER (lens = 'latentlens') AS latentlens_images,
    first(effective_tokens) FILTER (lens = 'latentlens') AS latentlens_effective_tokens,
    first(low) FILTER (lens = 'logitlens') AS logitlens_low,
    first(high) FILTER (lens = 'logitlens') AS logitlens_high,
    first(chance_low) FILTER (lens = 'logitlens') AS logitlens_chance_low,
    first(chance_high) FILTER (lens = 'logitlens') AS logitlens_chance_high,
    first(excess) FILTER (lens = 'logitlens') AS logitlens_excess,
    first(excess_low) FILTER (lens = 'logitlens') AS logitlens_excess_low,
    first(excess_high) FILTER (lens = 'logitlens') AS logitlens_excess_high,
    first(images) FILTER (lens = 'logitlens') AS logitlens_images,
    first(effective_tokens) FILTER (lens = 'logitlens') AS logitlens_effective_tokens,
    first(low) FILTER (lens = 'logitlens_shared') AS logitlens_shared_low,
    first(high) FILTER (lens = 'logitlens_shared') AS logitlens_shared_high,
    first(chance_low) FILTER (lens = 'logitlens_shared') AS logitlens_shared_chance_low,
    first(chance_high) FILTER (lens = 'logitlens_shared') AS logitlens_shared_chance_high,
    first(excess) FILTER (lens = 'logitlens_shared') AS logitlens_shared_excess,
    first(excess_low) FILTER (lens = 'logitlens_shared') AS logitlens_shared_excess_low,
    first(excess_high) FILTER (lens = 'logitlens_shared') AS logitlens_shared_excess_high,
    first(images) FILTER (lens = 'logitlens_shared') AS logitlens_shared_images,
    first(effective_tokens) FILTER (lens = 'logitlens_shared') AS logitlens_shared_effective_tokens,
    first(low) FILTER (lens = 'embeddinglens') AS embeddinglens_low,
    first(high) FILTER (lens = 'embeddinglens') AS embeddinglens_high,
    first(chance_low) FILTER (lens = 'embeddinglens') AS embeddinglens_chance_low,
    first(chance_high) FILTER (lens = 'embeddinglens') AS embeddinglens_chance_high,
    first(excess) FILTER (lens = 'embeddinglens') AS embeddinglens_excess,
    first(excess_low) FILTER (lens = 'embeddinglens') AS embeddinglens_excess_low,
    first(excess_high) FILTER (lens = 'embeddinglens') AS embeddinglens_excess_high,
    first(images) FILTER (lens = 'embeddinglens') AS embeddinglens_images,
    first(effective_tokens) FILTER (lens = 'embeddinglens') AS embeddinglens_effective_tokens,
    first(low) FILTER (lens = 'embeddinglens_shared') AS embeddinglens_shared_low,
    first(high) FILTER (lens = 'embeddinglens_shared') AS embeddinglens_shared_high,
    first(chance_low) FILTER (lens = 'embeddinglens_shared') AS embeddinglens_shared_chance_low,
    first(chance_high) FILTER (lens = 'embeddinglens_shared') AS embeddinglens_shared_chance_high,
    first(excess) FILTER (lens = 'embeddinglens_shared') AS embeddinglens_shared_excess,
    first(excess_low) FILTER (lens = 'embeddinglens_shared') AS embeddinglens_shared_excess_low,
    first(excess_high) FILTER (lens = 'embeddinglens_shared') AS embeddinglens_shared_excess_high,
    first(images) FILTER (lens = 'embeddinglens_shared') AS embeddinglens_shared_images,
    first(effective_tokens) FILTER (lens = 'embeddinglens_shared') AS embeddinglens_shared_effective_tokens
FROM shares
GROUP BY study, judge, visual_layer
ORDER BY study, judge, visual_layer
