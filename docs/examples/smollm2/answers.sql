SELECT
    texts.text,
    neighbors.visual_layer AS layer,
    neighbors.contextual_layer AS from_layer,
    round(neighbors.cosine, 3) AS cosine,
    sentences.text[:char_start] || '[' || neighbors.word || ']' || sentences.text[char_end + 1:] AS nearest
FROM neighbors
JOIN (SELECT image_id, max(token_index) AS token_index, word FROM text_tokens GROUP BY image_id, word) AS words
    USING (image_id, token_index)
JOIN texts ON texts.text_id = image_id
JOIN sentences USING (sentence_id)
WHERE study = 'smollm2' AND lens = 'latentlens' AND rank = 1 AND visual_layer IN (1, 24)
    AND words.word IN (
        'bank', 'bark', 'bass', 'bat', 'bolt', 'bow', 'chip', 'crane', 'date', 'draft', 'match', 'mouse', 'nail',
        'organ', 'palm', 'pitcher', 'punch', 'pupil', 'ruler', 'seal', 'spring'
    )
ORDER BY words.word, texts.text, layer
