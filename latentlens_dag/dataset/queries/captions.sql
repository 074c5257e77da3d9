-- title: What models say of the images
-- description: The captions that the models of studies with `captions: true` wrote, with what regions name in the image, and which of it the caption names. Two studies of the same images stand below one another.
-- param study = null: only this study
-- param image_id = null: only this image
-- param top = 100: how many captions
SELECT
    study,
    image_id,
    file_name,
    caption,
    list(name ORDER BY name) FILTER (WHERE present AND named) AS named,
    list(name ORDER BY name) FILTER (WHERE present AND NOT named) AS not_named,
    list(name ORDER BY name) FILTER (WHERE named AND NOT present) AS not_there
FROM generated_captions
LEFT JOIN images USING (image_id)
LEFT JOIN caption_objects USING (study, image_id)
WHERE ($study IS NULL OR study = $study) AND ($image_id IS NULL OR image_id = $image_id)
GROUP BY study, image_id, file_name, caption
ORDER BY image_id, study
LIMIT CAST($top AS INTEGER)
