-- What a transcription job answered.
SELECT
  *,
  answer.text AS content,
  NULL::FLOAT[] AS embedding,
  NULL::VARCHAR AS finish_reason,
  answer.text IS NOT NULL AS answered
FROM (
  SELECT *, json_transform(body, '{
    "model": "VARCHAR",
    "usage": {"prompt_tokens": "BIGINT", "completion_tokens": "BIGINT", "total_tokens": "BIGINT"},
    "text": "VARCHAR"
  }') AS answer
  FROM answers
)
