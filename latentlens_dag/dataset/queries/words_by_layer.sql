-- title: Words, layer by layer
-- description: How many patches, of how many images, have each of the words among their answers, per lens and visual layer.
-- param words: words with commas between them, in any case
-- param study = null: only this study
-- Lists of small numbers, image by image, take half the time of distinct pairs.
WITH hits AS (
    SELECT
        study,
        lower(nfc_normalize(word)) AS word,
        lens,
        visual_layer,
        list_unique(list(token_index)) AS patches
    FROM neighbors
    WHERE list_contains(list_transform(string_split(lower(nfc_normalize($words)), ','), lambda w: trim(w)), lower(nfc_normalize(word)))
        AND ($study IS NULL OR study = $study)
    GROUP BY study, lower(nfc_normalize(word)), lens, visual_layer, image_id
)
SELECT study, word, lens, visual_layer, CAST(sum(patches) AS BIGINT) AS patches, count(*) AS images
FROM hits
GROUP BY study, word, lens, visual_layer
ORDER BY study, word, lens, visual_layer
