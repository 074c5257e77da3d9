-- title: Categories of words
-- description: What annotated regions know of words: those that regions of several names share, with these names; and each name, with the words of its regions.
-- param study = null: only regions of this study's images
-- param least = 2: how many words a category has, at least
WITH known AS (
    SELECT lower(nfc_normalize(name)) AS name, words, abstract_words
    FROM regions
    WHERE name IS NOT NULL
        AND ($study IS NULL OR image_id IN (SELECT image_id FROM visual_tokens WHERE study = $study))
), named AS (
    SELECT name, word, count(*) AS regions
    FROM (
        SELECT name, lower(nfc_normalize(unnest(list_distinct(words)))) AS word FROM known
    )
    GROUP BY name, word
), totals AS (
    SELECT name, count(*) AS regions FROM known GROUP BY name
), shared AS (
    SELECT name, word FROM named
    UNION
    SELECT name, lower(nfc_normalize(unnest(abstract_words))) AS word FROM known
), categories AS (
    SELECT 'shared' AS of, word AS category, list(name ORDER BY name) AS words
    FROM shared
    GROUP BY word
    HAVING count(*) >= CAST($least AS INTEGER)
    UNION ALL
    SELECT 'name' AS of, name AS category, list(word ORDER BY named.regions DESC, word) AS words
    FROM named
    JOIN totals USING (name)
    WHERE 2 * named.regions > totals.regions
    GROUP BY name
    HAVING count(*) >= CAST($least AS INTEGER)
)
SELECT of, category, len(words) AS size, words
FROM categories
ORDER BY of DESC, if(of = 'shared', -size, 0), category
