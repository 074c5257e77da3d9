-- title: Geometry of the states
-- description: Per layer of visual tokens and of the index's text, norms, sinks, the mean cosine of two states (anisotropy), the dimensions that hold most of the length, and the most frequent first answer (hub).
-- param study = null: only this study
-- param source = null: visual, connector or contextual
SELECT
    study,
    source,
    layer,
    states,
    round(norm_median, 2) AS norm_median,
    round(norm_p99, 2) AS norm_p99,
    round(norm_max, 2) AS norm_max,
    sinks,
    round(anisotropy, 4) AS anisotropy,
    top_dimension,
    round(top_dimension_share, 4) AS top_dimension_share,
    round(top_10_share, 4) AS top_10_share,
    round(1 / dimensions, 4) AS even_share,
    hub_word,
    round(hub_share, 4) AS hub_share,
    first_answers,
    hub_tokens
FROM state_statistics
WHERE ($study IS NULL OR study = $study) AND ($source IS NULL OR source = $source)
ORDER BY study, source DESC, layer
