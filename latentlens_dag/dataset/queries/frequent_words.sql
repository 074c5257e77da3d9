-- title: The most frequent answers
-- description: The words that lenses answer most often, over all images without their padding.
-- param lens = latentlens: the lens
-- param layer = null: only this visual layer
-- param study = null: only this study
-- param top = 24: words per study
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
    SELECT study, lower(nfc_normalize(word)) AS word, count(*) AS answers
    FROM neighbors
    ANTI JOIN blank USING (study, image_id, token_index)
    WHERE lens = $lens
        AND word <> ''
        AND ($layer IS NULL OR visual_layer = CAST($layer AS INTEGER))
        AND ($study IS NULL OR study = $study)
    GROUP BY study, lower(nfc_normalize(word))
)
SELECT study, word, answers
FROM counts
QUALIFY row_number() OVER (PARTITION BY study ORDER BY answers DESC, word) <= CAST($top AS INTEGER)
ORDER BY study, answers DESC, word
