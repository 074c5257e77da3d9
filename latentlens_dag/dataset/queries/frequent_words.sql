-- title: The most frequent answers
-- description: The words that lenses answer most often, over all images.
-- param lens = latentlens: the lens
-- param layer = null: only this visual layer
-- param study = null: only this study
-- param top = 24: words per study
WITH counts AS (
    SELECT study, lower(nfc_normalize(word)) AS word, count(*) AS answers
    FROM neighbors
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
