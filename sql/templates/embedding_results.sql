-- What an embedding job answered. Several inputs in one request have several embeddings: they are in `response`.
SELECT
  *,
  NULL::VARCHAR AS content,
  CASE WHEN len(answer.data) = 1 THEN answer.data[1].embedding END AS embedding,
  NULL::VARCHAR AS finish_reason,
  -- Numbers, or what else was asked for (encoding_format), which is in `response`.
  answer.data[1].embedding IS NOT NULL
    OR coalesce(json_type(body, '$$.data[0].embedding'), 'NULL') <> 'NULL' AS answered
FROM (
  SELECT *, json_transform(body, '{
    "model": "VARCHAR",
    "usage": {"prompt_tokens": "BIGINT", "completion_tokens": "BIGINT", "total_tokens": "BIGINT"},
    "data": [{"embedding": ["FLOAT"]}]
  }') AS answer
  FROM answers
)
