-- /v1/chat/classifications: one result per conversation, which is an object with messages; of its last message.
WITH
  read AS (SELECT custom_id, body->>'$.model' AS model, body->'$.input' AS input FROM requests),
  texts AS (
    SELECT
      *,
      CASE
        WHEN json_type(input, '$.messages') = 'ARRAY' THEN [content_text(input->'$.messages[#-1].content')]
        WHEN json_type(input, '$[0].messages') = 'ARRAY' THEN list_transform(
          json_extract(input, '$[*]'),
          lambda chat: content_text(json_extract(chat, '$.messages[#-1].content'))
        )
      END AS texts
    FROM read
  )
SELECT
  custom_id,
  array_to_string(texts, ' ') AS text,
  CASE WHEN texts IS NULL THEN 'input' END AS wrong,
  to_json({
    'id': md5(custom_id),
    'model': coalesce(model, $model),
    'results': list_transform(texts, lambda text: classification(text))
  }) AS answer
FROM texts
