-- /v1/moderations: one result per text.
WITH
  read AS (
    SELECT custom_id, body->>'$.model' AS model, input_texts(body->'$.input') AS texts FROM requests
  )
SELECT
  custom_id,
  array_to_string(texts, ' ') AS text,
  CASE WHEN coalesce(len(texts), 0) = 0 THEN 'input' END AS wrong,
  to_json({
    'id': md5(custom_id),
    'model': coalesce(model, $model),
    'results': list_transform(texts, lambda text: moderation(text))
  }) AS answer
FROM read
