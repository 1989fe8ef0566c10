-- What a job of an endpoint answered that this version does not know: all of it is in `response`.
SELECT
  *,
  NULL::VARCHAR AS content,
  NULL::FLOAT[] AS embedding,
  NULL::VARCHAR AS finish_reason,
  body IS NOT NULL AS answered
FROM (
  SELECT *, json_transform(body, '{
    "model": "VARCHAR",
    "usage": {"prompt_tokens": "BIGINT", "completion_tokens": "BIGINT", "total_tokens": "BIGINT"}
  }') AS answer
  FROM answers
)
