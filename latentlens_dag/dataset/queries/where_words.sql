-- title: Where any of several words lights up
-- description: Per image, the patches that have one of the words among their answers, with their boxes; most patches first.
-- param words: words with commas between them, in any case
-- param lens = latentlens: the lens
-- param layer = null: only this visual layer
-- param study = null: only this study
WITH hits AS (
    SELECT study, image_id, token_index, min(rank) AS best_rank
    FROM neighbors
    WHERE list_contains(list_transform(string_split(lower(nfc_normalize($words)), ','), lambda w: trim(w)), lower(nfc_normalize(word)))
        AND lens = $lens
        AND ($layer IS NULL OR visual_layer = CAST($layer AS INTEGER))
        AND ($study IS NULL OR study = $study)
    GROUP BY study, image_id, token_index
)
SELECT
    study,
    image_id,
    any_value(images.file_name) AS file_name,
    any_value(images.width) AS width,
    any_value(images.height) AS height,
    count(*) AS patches,
    min(best_rank) AS best_rank,
    list(token_index ORDER BY token_index) AS token_indices,
    list([x0, y0, x1, y1] ORDER BY token_index) FILTER (x0 IS NOT NULL) AS boxes
FROM hits
LEFT JOIN visual_tokens USING (study, image_id, token_index)
LEFT JOIN images USING (image_id)
GROUP BY study, image_id
ORDER BY patches DESC, best_rank, study, image_id
