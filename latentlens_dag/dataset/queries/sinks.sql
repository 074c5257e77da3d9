-- title: Attention sinks
-- description: How many tokens of each layer are attention sinks: their norm is an outlier, and what lenses say of them means nothing.
-- param study = null: only this study
-- param layer = null: only this visual layer
SELECT
    study,
    visual_layer AS layer,
    count(*) AS sinks,
    count(DISTINCT image_id) AS images,
    any_value(sink_norm) AS above_norm,
    max(norm) AS highest_norm
FROM sinks
WHERE ($study IS NULL OR study = $study) AND ($layer IS NULL OR visual_layer = CAST($layer AS INTEGER))
GROUP BY study, visual_layer
ORDER BY study, layer
