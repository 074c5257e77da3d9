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
), layers AS (
    -- Every token that has answers has one of rank 1.
    SELECT study, lens, visual_layer
    FROM neighbors
    WHERE rank = 1
    GROUP BY study, lens, visual_layer
), kinds AS (
    SELECT
        study,
        list_sort(list(DISTINCT visual_layer)) AS visual_layers,
        list_sort(list(DISTINCT lens)) AS lenses
    FROM layers
    GROUP BY study
), answers AS (
    SELECT study, count(*) AS answers
    FROM neighbors
    GROUP BY study
)
SELECT study, images, texts, visual_tokens, answers, visual_layers, lenses
FROM tokens
FULL JOIN answers USING (study)
LEFT JOIN kinds USING (study)
ORDER BY study
