-- What an embedding job answered. Several inputs in one request have several embeddings: they are in `response`.
SELECT
  *,
  NULL::VARCHAR AS content,
  CASE WHEN len(answer.data) = 1 THEN answer.data[1].embedding END AS embedding,
  NULL::VARCHAR AS finish_reason,
  coalesce(len(answer.data), 0) > 0 AS answered
FROM (
  SELECT *, json_transform(body, '{
    "model": "VARCHAR",
    "usage": {"prompt_tokens": "BIGINT", "completion_tokens": "BIGINT", "total_tokens": "BIGINT"},
    "data": [{"embedding": ["FLOAT"]}]
  }') AS answer
  FROM answers
)
