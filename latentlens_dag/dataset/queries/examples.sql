-- title: Examples of a lens at a layer
-- description: Patches with their nearest answer, place and verdict: one of each image in turn, in an order that is chance and always the same. None is padding.
-- param layer: the visual layer
-- param lens = latentlens: the lens
-- param study = null: only this study
-- param contextual_layer = null: only answers from this contextual layer
-- param low = null: a nearest answer of at least this cosine (or logit)
-- param high = null: a nearest answer below this cosine (or logit)
-- param patch_group = null: object or background
-- param top = 24: how many
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
    SELECT
        study,
        image_id,
        token_index,
        arg_min(coalesce(word, token_str), rank) AS word,
        arg_min(cosine, rank) AS cosine,
        arg_min(logit, rank) AS logit,
        md5(image_id || ' ' || token_index) AS chance
    FROM neighbors
    ANTI JOIN blank USING (study, image_id, token_index)
    WHERE lens = $lens
        AND visual_layer = CAST($layer AS INTEGER)
        AND ($study IS NULL OR study = $study)
        AND if($contextual_layer IS NULL, rank = 1, contextual_layer = CAST($contextual_layer AS INTEGER))
    GROUP BY study, image_id, token_index
), judged AS (
    SELECT study, image_id, token_index, arg_min(verdict, judge) AS verdict, arg_min(patch_group, judge) AS patch_group
    FROM judgements
    WHERE lens = $lens
        AND visual_layer = CAST($layer AS INTEGER)
        AND ($study IS NULL OR study = $study)
    GROUP BY study, image_id, token_index
), fitting AS (
    SELECT *
    FROM nearest
    LEFT JOIN judged USING (study, image_id, token_index)
    WHERE ($low IS NULL OR coalesce(cosine, logit) >= CAST($low AS DOUBLE))
        AND ($high IS NULL OR coalesce(cosine, logit) < CAST($high AS DOUBLE))
        AND ($patch_group IS NULL OR patch_group = $patch_group)
), drawn AS (
    SELECT *, row_number() OVER (PARTITION BY study, image_id ORDER BY chance) AS turn
    FROM fitting
    QUALIFY turn <= CAST($top AS INTEGER)
)
SELECT study, image_id, token_index, word, cosine, logit, verdict, x0, y0, x1, y1
FROM drawn
LEFT JOIN visual_tokens USING (study, image_id, token_index)
QUALIFY row_number() OVER (ORDER BY turn, chance, study) <= CAST($top AS INTEGER)
ORDER BY turn, chance, study
