-- title: How similar the nearest answers are
-- description: Per study and visual layer, how many tokens have a nearest answer of which cosine (or logit), in bins of one round width for all layers. Padding is left out.
-- param lens = latentlens: the lens
-- param study = null: only this study
WITH blank AS (
    -- Tokens that show nothing of their image: ends of rows, separators, and those wholly in the padding.
    SELECT study, image_id, token_index
    FROM visual_tokens
    LEFT JOIN images USING (image_id)
    WHERE view IN ('newline', 'padding', 'separator')
        OR x1 <= 0.001
        OR y1 <= 0.001
        OR x0 >= width - 0.001
        OR y0 >= height - 0.001
), nearest AS (
    SELECT study, visual_layer, CAST(coalesce(cosine, logit) AS DOUBLE) AS similarity
    FROM neighbors
    ANTI JOIN blank USING (study, image_id, token_index)
    WHERE lens = $lens AND rank = 1 AND ($study IS NULL OR study = $study) AND coalesce(cosine, logit) IS NOT NULL
), fine AS (
    SELECT greatest(max(similarity) - min(similarity), 1e-6) / 40 AS width FROM nearest
), magnitude AS (
    SELECT width, pow(10, floor(log10(width))) AS ten FROM fine
), step AS (
    SELECT ten * CASE WHEN width <= 1.001 * ten THEN 1 WHEN width <= 2 * ten THEN 2 WHEN width <= 5 * ten THEN 5 ELSE 10 END AS step
    FROM magnitude
), bins AS (
    SELECT study, visual_layer, CAST(floor(similarity / step + 1e-9) AS BIGINT) AS bin, step, count(*) AS tokens
    FROM nearest, step
    GROUP BY study, visual_layer, bin, step
)
SELECT
    study,
    visual_layer,
    round(bin * step, 6) AS low,
    round((bin + 1) * step, 6) AS high,
    tokens,
    tokens / sum(tokens) OVER (PARTITION BY study, visual_layer) AS share
FROM bins
ORDER BY study, visual_layer, low
