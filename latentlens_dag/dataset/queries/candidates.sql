-- title: Whose candidates are the same
-- description: Per lens with shared candidates, how many tokens it may answer with, how many of these LatentLens may not, and how many LatentLens alone may: where both are 0, the two have the same.
-- param study = null: only this study
WITH own AS (
    SELECT study, lens, token_id
    FROM candidates
    WHERE $study IS NULL OR study = $study
), latent AS (
    SELECT study, token_id, count(*) OVER (PARTITION BY study) AS tokens
    FROM own
    WHERE lens = 'latentlens'
), sizes AS (
    SELECT DISTINCT study, tokens FROM latent
)
SELECT
    study,
    lens,
    count(*) AS tokens,
    if(any_value(sizes.tokens) IS NULL, NULL, count(*) - count(latent.tokens)) AS only_here,
    any_value(sizes.tokens) - count(latent.tokens) AS only_latentlens
FROM own
LEFT JOIN latent USING (study, token_id)
LEFT JOIN sizes USING (study)
GROUP BY study, lens
ORDER BY study, lens
