-- title: Where two lenses or layers disagree
-- description: Per patch of a study, the share of the words among its answers, in any case, that only one of two lenses or layers has: 1 - words of both / words of either.
-- param layer: the visual layer
-- param other_layer: the other visual layer
-- param lens = latentlens: the lens
-- param other_lens = latentlens: the other lens
-- param study = null: only this study
-- param images = null: only these images, as ids with commas between them
-- param top = null: only so many of the nearest answers
WITH answers AS (
    SELECT
        study,
        image_id,
        token_index,
        lower(nfc_normalize(trim(coalesce(nullif(trim(word), ''), token_str, '')))) AS word,
        lens = $lens AND visual_layer = CAST($layer AS INTEGER) AS here,
        lens = $other_lens AND visual_layer = CAST($other_layer AS INTEGER) AS there
    FROM neighbors
    WHERE (
            (lens = $lens AND visual_layer = CAST($layer AS INTEGER))
            OR (lens = $other_lens AND visual_layer = CAST($other_layer AS INTEGER))
        )
        AND ($study IS NULL OR study = $study)
        AND ($images IS NULL OR list_contains(string_split($images, ','), image_id))
        AND ($top IS NULL OR rank <= CAST($top AS INTEGER))
), patches AS (
    SELECT
        study,
        image_id,
        token_index,
        list_distinct(list(word) FILTER (here)) AS words,
        list_distinct(list(word) FILTER (there)) AS other_words,
        list_intersect(words, other_words) AS shared
    FROM answers
    GROUP BY study, image_id, token_index
    HAVING bool_or(here) AND bool_or(there)
)
SELECT
    study,
    image_id,
    token_index,
    1 - len(shared) / (len(words) + len(other_words) - len(shared)) AS disagreement,
    list_sort(shared) AS in_both,
    list_sort(list_filter(words, lambda word: NOT list_contains(shared, word))) AS only_here,
    list_sort(list_filter(other_words, lambda word: NOT list_contains(shared, word))) AS only_there
FROM patches
ORDER BY study, image_id, token_index
