-- title: How far two studies give the same answers
-- description: Of the neighbors of a visual token, the mean percentage that two studies of the same images have in common, at each lens and layer of both: by token of the vocabulary, by word in any case, and of LatentLens by sentence. As in the paper's comparison of runs. Each token counts with as many answers as it has in both studies, the nearest ones; several equal answers count as often as both have them. Padding, newlines and separators are left out, and tokens that lie elsewhere in the other study.
-- param study: the study
-- param other_study: the other study
-- param lens = null: only this lens
-- param layer = null: only this visual layer
WITH shown AS (
    SELECT study, image_id, token_index, x0, y0, x1, y1 FROM visual_tokens WHERE view NOT IN ('padding', 'newline', 'separator')
), answers AS (
    SELECT
        study,
        image_id,
        token_index,
        visual_layer,
        lens,
        rank,
        token_id,
        lower(word) AS word,
        sentence_id,
        x0,
        y0,
        x1,
        y1,
        max(rank) OVER (PARTITION BY study, image_id, token_index, visual_layer, lens) AS given
    FROM neighbors
    JOIN shown USING (study, image_id, token_index)
    WHERE study IN ($study, $other_study)
        AND ($lens IS NULL OR lens = $lens)
        AND ($layer IS NULL OR visual_layer = CAST($layer AS INTEGER))
), tokens AS (
    SELECT image_id, token_index, visual_layer, lens, min(given) AS k
    FROM answers
    WHERE rank = 1
    GROUP BY ALL
    HAVING count(DISTINCT study) = 2 AND count(DISTINCT (x0, y0, x1, y1)) = 1  -- the same place of the image
), counted AS (
    SELECT answers.* EXCLUDE (x0, y0, x1, y1) FROM answers JOIN tokens USING (image_id, token_index, visual_layer, lens) WHERE rank <= k
), keyed AS (
    SELECT *, 'token' AS label, CAST(token_id AS VARCHAR) AS answer FROM counted
    UNION ALL
    SELECT *, 'word' AS label, word AS answer FROM counted
    UNION ALL
    SELECT *, 'sentence' AS label, sentence_id AS answer FROM counted WHERE sentence_id IS NOT NULL
), common AS (
    SELECT image_id, token_index, visual_layer, lens, label, least(of_study, of_other) AS shared
    FROM (
        SELECT
            image_id,
            token_index,
            visual_layer,
            lens,
            label,
            answer,
            count(*) FILTER (WHERE study = $study) AS of_study,
            count(*) FILTER (WHERE study = $other_study) AS of_other
        FROM keyed
        GROUP BY ALL
    )
), per_token AS (
    SELECT image_id, token_index, visual_layer, lens, label, sum(shared) / any_value(k) AS share
    FROM common
    JOIN tokens USING (image_id, token_index, visual_layer, lens)
    GROUP BY ALL
)
SELECT
    lens,
    visual_layer,
    round(100 * avg(share) FILTER (WHERE label = 'token'), 1) AS token_percent,
    round(100 * avg(share) FILTER (WHERE label = 'word'), 1) AS word_percent,
    round(100 * avg(share) FILTER (WHERE label = 'sentence'), 1) AS sentence_percent,
    count(DISTINCT image_id) AS images,
    count(*) FILTER (WHERE label = 'token') AS tokens
FROM per_token
GROUP BY lens, visual_layer
ORDER BY lens, visual_layer
