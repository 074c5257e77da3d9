-- title: What there is
-- description: The studies of this dataset with their numbers of images or texts, of their tokens and answers, their layers and lenses.
WITH tokens AS (
    SELECT
        study,
        count(DISTINCT image_id) FILTER (view IS DISTINCT FROM 'text') AS images,
        count(DISTINCT image_id) FILTER (view = 'text') AS texts,
        count(*) AS visual_tokens
    FROM visual_tokens
    GROUP BY study
), answers AS (
    SELECT
        study,
        count(*) AS answers,
        list_sort(list(DISTINCT visual_layer)) AS visual_layers,
        list_sort(list(DISTINCT lens)) AS lenses
    FROM neighbors
    GROUP BY study
)
SELECT study, images, texts, visual_tokens, answers, visual_layers, lenses
FROM tokens
FULL JOIN answers USING (study)
ORDER BY study
