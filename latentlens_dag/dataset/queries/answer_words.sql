-- title: The words of each patch
-- description: Per patch, the different words among its answers at one lens and layer, in lower case.
-- param layer: the visual layer
-- param lens = latentlens: the lens
-- param study = null: only this study
-- param images = null: only these images, as ids with commas between them
-- param top = null: only so many of the nearest answers
SELECT
    study,
    image_id,
    token_index,
    list_sort(list(DISTINCT lower(nfc_normalize(trim(coalesce(nullif(trim(word), ''), token_str, '')))))) AS words
FROM neighbors
WHERE lens = $lens
    AND visual_layer = CAST($layer AS INTEGER)
    AND ($study IS NULL OR study = $study)
    AND ($images IS NULL OR list_contains(string_split($images, ','), image_id))
    AND ($top IS NULL OR rank <= CAST($top AS INTEGER))
GROUP BY study, image_id, token_index
ORDER BY study, image_id, token_index
