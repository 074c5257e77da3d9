-- title: Images with patches of a kind
-- description: Per image, how many patches have one of the words among their answers, a verdict and a similarity, at one lens and layer; most first.
-- param layer: the visual layer
-- param lens = latentlens: the lens
-- param study = null: only this study
-- param words = null: any of these words, with commas between them, in any case
-- param verdict = null: concrete, abstract, global or none
-- param similarity = null: at least this cosine (or logit) of the nearest answer
WITH patches AS (
    SELECT
        study,
        image_id,
        token_index,
        min_by(word, rank) AS word,
        max(coalesce(cosine, logit)) AS similarity,
        $words IS NULL
        OR bool_or(
            list_contains(
                list_transform(string_split(lower(nfc_normalize($words)), ','), lambda w: trim(w)),
                lower(nfc_normalize(word))
            )
        ) AS named
    FROM neighbors
    WHERE lens = $lens
        AND visual_layer = CAST($layer AS INTEGER)
        AND ($study IS NULL OR study = $study)
    GROUP BY study, image_id, token_index
), judged AS (
    SELECT DISTINCT study, image_id, token_index
    FROM judgements
    WHERE verdict = $verdict
        AND lens = $lens
        AND visual_layer = CAST($layer AS INTEGER)
        AND ($study IS NULL OR study = $study)
), kept AS (
    SELECT
        patches.*,
        named
        AND ($similarity IS NULL OR similarity >= CAST($similarity AS DOUBLE))
        AND ($verdict IS NULL OR judged.token_index IS NOT NULL) AS fits
    FROM patches
    LEFT JOIN judged USING (study, image_id, token_index)
)
SELECT
    study,
    image_id,
    any_value(images.file_name) AS file_name,
    count(*) FILTER (fits) AS patches,
    count(*) AS tokens,
    mode(lower(nfc_normalize(word))) FILTER (fits) AS frequent_word,
    avg(similarity) FILTER (fits) AS mean_similarity
FROM kept
LEFT JOIN images USING (image_id)
GROUP BY study, image_id
HAVING count(*) FILTER (fits) > 0
ORDER BY if($words IS NULL AND $verdict IS NULL AND $similarity IS NULL, 0, -count(*) FILTER (fits)), file_name, study, image_id
