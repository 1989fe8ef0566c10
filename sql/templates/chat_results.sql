-- What a chat or completion job answered. A string and a list of chunks are told apart by their
-- JSON type, asked only where the text could be a list.
WITH
  parsed AS (
    SELECT
      *,
      json_transform(body, '{
        "model": "VARCHAR",
        "usage": {"prompt_tokens": "BIGINT", "completion_tokens": "BIGINT", "total_tokens": "BIGINT"},
        "choices": [{"finish_reason": "VARCHAR", "message": {"content": "VARCHAR", "tool_calls": "JSON"}}]
      }') AS answer
    FROM answers
  ),
  read AS (
    SELECT
      *,
      answer.choices[1].finish_reason AS finish_reason,
      answer.choices[1].message.tool_calls AS tool_calls,
      CASE
        WHEN answer.choices[1].message.content IS NULL OR answer.choices[1].message.content NOT LIKE '[%'
          THEN answer.choices[1].message.content
        WHEN json_type(body, '$$.choices[0].message.content') <> 'ARRAY' THEN answer.choices[1].message.content
        ELSE array_to_string(list_transform(
          list_filter(
            json_transform(body->'$$.choices[0].message.content', '[{"type": "VARCHAR", "text": "VARCHAR"}]'),
            lambda chunk: chunk.type = 'text'
          ),
          lambda chunk: chunk.text
        ), '')
      END AS content
    FROM parsed
  )
SELECT
  *,
  NULL::FLOAT[] AS embedding,
  content IS NOT NULL OR coalesce(tool_calls NOT IN ('null', '[]'), false) AS answered
FROM read
