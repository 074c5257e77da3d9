-- title: The patches of one image
-- description: Every visual token of an image: where it lies, its nearest answer at one lens and layer, and the verdict on it.
-- param image_id: the image
-- param layer: the visual layer
-- param lens = latentlens: the lens
-- param study = null: only this study
WITH nearest AS (
    SELECT study, token_index, word, token_str, contextual_layer, cosine, logit
    FROM neighbors
    WHERE image_id = $image_id
        AND visual_layer = CAST($layer AS INTEGER)
        AND lens = $lens
        AND rank = 1
), judged AS (
    SELECT study, token_index, arg_min(verdict, judge) AS verdict, arg_min(patch_group, judge) AS patch_group
    FROM judgements
    WHERE image_id = $image_id
        AND visual_layer = CAST($layer AS INTEGER)
        AND lens = $lens
    GROUP BY study, token_index
)
SELECT
    study,
    token_index,
    view,
    tile,
    row,
    col,
    x0,
    y0,
    x1,
    y1,
    word,
    token_str,
    contextual_layer,
    cosine,
    logit,
    verdict,
    patch_group
FROM visual_tokens
LEFT JOIN nearest USING (study, token_index)
LEFT JOIN judged USING (study, token_index)
WHERE image_id = $image_id
    AND ($study IS NULL OR study = $study)
ORDER BY study, token_index
