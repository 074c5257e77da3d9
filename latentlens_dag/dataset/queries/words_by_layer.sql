-- title: Words, layer by layer
-- description: How many patches, of how many images, have each of the words among their answers, per lens and visual layer. Padding is left out.
-- param words: words with commas between them, in any case
-- param study = null: only this study
-- Lists of small numbers, image by image, take half the time of distinct pairs.
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
), hits AS (
    SELECT
        study,
        lower(nfc_normalize(word)) AS word,
        lens,
        visual_layer,
        list_unique(list(token_index)) AS patches
    FROM neighbors
    ANTI JOIN blank USING (study, image_id, token_index)
    WHERE list_contains(list_transform(string_split(lower(nfc_normalize($words)), ','), lambda w: trim(w)), lower(nfc_normalize(word)))
        AND ($study IS NULL OR study = $study)
    GROUP BY study, lower(nfc_normalize(word)), lens, visual_layer, image_id
)
SELECT study, word, lens, visual_layer, CAST(sum(patches) AS BIGINT) AS patches, count(*) AS images
FROM hits
GROUP BY study, word, lens, visual_layer
ORDER BY study, word, lens, visual_layer
