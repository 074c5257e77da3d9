-- title: Which of two studies says more
-- description: By how many percentage points two studies of the same images differ, at each lens and layer of both. An image counts with its shares in both and as many patches as they have on average. Intervals and p-values need all images' counts exchanged thousands of times, which SQL has not: the command `diff --shares` gives them. Of studies with another `top_k`, one has more answers, and so more that fit: `diff --shares` then compares the nearest alone.
-- param study: the study
-- param other_study: the other study
-- param patch_group = all: all, object or background
-- param measure = interpretable: interpretable, concrete, abstract or global
WITH per_image AS (
    SELECT
        study,
        judge,
        lens,
        visual_layer,
        image_id,
        count(*) AS tokens,
        avg(CAST(if($measure = 'interpretable', verdict <> 'none', verdict = $measure) AS INTEGER)) AS share
    FROM judgements
    ANTI JOIN sinks USING (study, image_id, token_index, visual_layer)
    WHERE study IN ($study, $other_study)
        AND patch_group IN ('object', 'background')
        AND $patch_group IN ('all', patch_group)
    GROUP BY ALL
), pairs AS (
    SELECT
        judge,
        lens,
        visual_layer,
        one.tokens AS tokens,
        (one.tokens + other.tokens) / 2 AS weight,
        one.share AS share,
        other.share AS other_share
    FROM per_image AS one
    JOIN per_image AS other USING (judge, lens, visual_layer, image_id)
    WHERE one.study = $study AND other.study = $other_study
)
SELECT
    judge,
    lens,
    visual_layer,
    round(100 * sum(weight * share) / sum(weight), 1) AS percent,
    round(100 * sum(weight * other_share) / sum(weight), 1) AS other_percent,
    round(100 * sum(weight * (share - other_share)) / sum(weight), 1) AS points,
    count(*) AS images,
    sum(tokens) AS tokens
FROM pairs
GROUP BY judge, lens, visual_layer
ORDER BY judge, lens, visual_layer
