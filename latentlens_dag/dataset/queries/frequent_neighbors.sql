-- title: The most frequent answers of each image
-- description: Per image, the words that most visual tokens have among their answers, at one lens and any or one layer. Padding is left out.
-- param lens = latentlens: the lens
-- param layer = null: only this visual layer
-- param image_id = null: only this image
-- param study = null: only this study
-- param top = 5: words per image
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
), counts AS (
    SELECT
        study,
        image_id,
        lower(nfc_normalize(word)) AS word,
        count(DISTINCT (visual_layer, token_index)) AS tokens
    FROM neighbors
    ANTI JOIN blank USING (study, image_id, token_index)
    WHERE lens = $lens
        AND ($layer IS NULL OR visual_layer = CAST($layer AS INTEGER))
        AND ($image_id IS NULL OR image_id = $image_id)
        AND ($study IS NULL OR study = $study)
    GROUP BY study, image_id, lower(nfc_normalize(word))
), ranked AS (
    SELECT *, row_number() OVER (PARTITION BY study, image_id ORDER BY tokens DESC, word) AS place
    FROM counts
)
SELECT ranked.study, image_id, images.file_name, place, word, tokens
FROM ranked
LEFT JOIN images USING (image_id)
WHERE place <= CAST($top AS INTEGER)
ORDER BY ranked.study, image_id, place
