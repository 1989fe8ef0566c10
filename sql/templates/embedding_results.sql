-- What an embedding job answered. Several inputs in one request have several embeddings: they are in `response`.
SELECT
  *,
  NULL::VARCHAR AS content,
  CASE WHEN len(answer.data) = 1
    THEN coalesce(answer.data[1].embedding, mistral_internal_floats(TRY(from_base64(packed))))
  END AS embedding,
  NULL::VARCHAR AS finish_reason,
  -- Numbers, or what else was asked for (encoding_format, output_dtype), which is in `response`.
  answer.data[1].embedding IS NOT NULL OR TRY(from_base64(packed)) IS NOT NULL AS answered
FROM (
  SELECT
    *,
    CASE WHEN answer.data[1].embedding IS NULL AND json_type(body, '$$.data[0].embedding') = 'VARCHAR'
      THEN nullif(body->>'$$.data[0].embedding', '')
    END AS packed
  FROM (
    SELECT *, json_transform(body, '{
      "model": "VARCHAR",
      "usage": {"prompt_tokens": "BIGINT", "completion_tokens": "BIGINT", "total_tokens": "BIGINT"},
      "data": [{"embedding": ["FLOAT"]}]
    }') AS answer
    FROM answers
  )
)
