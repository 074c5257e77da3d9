-- title: Where a word lights up
-- description: The images, layers and lenses in which visual tokens have the word among their answers, most tokens first.
-- param word: the word, in any case
-- param lens = null: only this lens
-- param layer = null: only this visual layer
-- param study = null: only this study
SELECT
    study,
    image_id,
    any_value(images.file_name) AS file_name,
    visual_layer,
    lens,
    count(DISTINCT token_index) AS patches,
    min(rank) AS best_rank,
    list_sort(list(DISTINCT token_index)) AS token_indices
FROM neighbors
LEFT JOIN images USING (image_id)
WHERE lower(nfc_normalize(word)) = lower(nfc_normalize($word))
    AND ($lens IS NULL OR lens = $lens)
    AND ($layer IS NULL OR visual_layer = CAST($layer AS INTEGER))
    AND ($study IS NULL OR study = $study)
GROUP BY study, image_id, visual_layer, lens
ORDER BY patches DESC, study, image_id, visual_layer, lens
