-- title: What a word of the texts is read as
-- description: Of studies of texts: each place where the word stands, and at each layer the words that a lens has for its last token, with the sentence of the nearest.
-- param word: the word, in any case
-- param study = null: only this study
-- param lens = latentlens: the lens
-- param layer = null: only this layer
WITH places AS (
    SELECT study, image_id, char_start, max(token_index) AS token_index
    FROM text_tokens
    WHERE lower(nfc_normalize(word)) = lower(nfc_normalize($word)) AND ($study IS NULL OR study = $study)
    GROUP BY study, image_id, char_start
)
SELECT
    places.study,
    places.image_id AS text_id,
    visual_layer AS layer,
    token_index,
    texts.text,
    string_agg(neighbors.word, ', ' ORDER BY rank) AS neighbors,
    any_value(sentences.text) FILTER (rank = 1) AS nearest_sentence
FROM places
JOIN neighbors USING (study, image_id, token_index)
LEFT JOIN sentences USING (sentence_id)
LEFT JOIN texts ON texts.text_id = places.image_id
WHERE lens = $lens AND ($layer IS NULL OR visual_layer = CAST($layer AS INTEGER))
GROUP BY ALL
ORDER BY places.study, text_id, token_index, layer
