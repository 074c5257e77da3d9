-- title: One visual token through lenses and layers
-- description: All answers of one visual token, with the sentence each was found in and the verdict on the lens and layer.
-- param image_id: the image
-- param token_index: the visual token, from 0
-- param study = null: only this study
-- param lens = null: only this lens
-- param layer = null: only this visual layer
SELECT
    neighbors.study,
    visual_layer,
    lens,
    rank,
    word,
    token_str,
    contextual_layer,
    cosine,
    logit,
    sentences.text AS sentence,
    char_start,
    char_end,
    judge,
    verdict,
    list_contains(judgements.words, word) AS earned
FROM neighbors
LEFT JOIN sentences USING (sentence_id)
LEFT JOIN judgements USING (study, image_id, token_index, visual_layer, lens)
WHERE image_id = $image_id
    AND token_index = CAST($token_index AS INTEGER)
    AND ($study IS NULL OR neighbors.study = $study)
    AND ($lens IS NULL OR lens = $lens)
    AND ($layer IS NULL OR visual_layer = CAST($layer AS INTEGER))
ORDER BY neighbors.study, visual_layer, lens, judge, rank
