-- title: Texts, token by token
-- description: Of studies of texts: every token in its place, and at each layer the words that a lens has for it, nearest first.
-- param study = null: only this study
-- param text_id = null: only this text
-- param lens = latentlens: the lens
-- param layer = null: only this layer
SELECT
    text_tokens.study,
    text_tokens.image_id AS text_id,
    token_index,
    text_tokens.token_str AS token,
    text_tokens.word AS in_word,
    visual_layer AS layer,
    string_agg(neighbors.word, ', ' ORDER BY rank) AS neighbors,
    any_value(sentences.text) FILTER (rank = 1) AS nearest_sentence
FROM text_tokens
JOIN neighbors USING (study, image_id, token_index)
LEFT JOIN sentences USING (sentence_id)
WHERE lens = $lens
    AND ($study IS NULL OR text_tokens.study = $study)
    AND ($text_id IS NULL OR text_tokens.image_id = $text_id)
    AND ($layer IS NULL OR visual_layer = CAST($layer AS INTEGER))
GROUP BY ALL
ORDER BY text_tokens.study, text_id, layer, token_index
