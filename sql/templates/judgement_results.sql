-- What a moderation or classification job answered: categories and scores are in `response`.
SELECT
  *,
  NULL::VARCHAR AS content,
  NULL::FLOAT[] AS embedding,
  NULL::VARCHAR AS finish_reason,
  coalesce(len(answer.results), 0) > 0 AS answered
FROM (
  SELECT *, json_transform(body, '{
    "model": "VARCHAR",
    "usage": {"prompt_tokens": "BIGINT", "completion_tokens": "BIGINT", "total_tokens": "BIGINT"},
    "results": ["JSON"]
  }') AS answer
  FROM answers
)
