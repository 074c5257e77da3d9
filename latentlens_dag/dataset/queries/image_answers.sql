-- title: All answers for one image
-- description: Every visual token of an image in its place, with each of its answers at one lens and layer, the sentence of each and the verdict.
-- param image_id: the image
-- param layer: the visual layer
-- param lens = latentlens: the lens
-- param study = null: only this study
WITH judged AS (
    SELECT study, token_index, arg_min(verdict, judge) AS verdict
    FROM judgements
    WHERE image_id = $image_id
        AND visual_layer = CAST($layer AS INTEGER)
        AND lens = $lens
    GROUP BY study, token_index
)
SELECT
    study,
    image_id,
    token_index,
    view,
    tile,
    row,
    col,
    x0,
    y0,
    x1,
    y1,
    lens,
    visual_layer,
    verdict,
    rank,
    word,
    token_str,
    cosine,
    logit,
    contextual_layer,
    sentences.text AS sentence,
    char_start,
    char_end
FROM visual_tokens
JOIN neighbors USING (study, image_id, token_index)
LEFT JOIN sentences USING (sentence_id)
LEFT JOIN judged USING (study, token_index)
WHERE image_id = $image_id
    AND visual_layer = CAST($layer AS INTEGER)
    AND lens = $lens
    AND ($study IS NULL OR study = $study)
ORDER BY study, token_index, rank
