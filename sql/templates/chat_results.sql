-- What a chat or completion job answered. A string and a list of chunks are told apart by their
-- JSON type, asked only where the text could be a list. Text chunks are joined; without any there is no content.
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
  chunked AS (
    SELECT
      *,
      answer.choices[1].message.content AS text,
      answer.choices[1].finish_reason AS finish_reason,
      coalesce(answer.choices[1].message.tool_calls NOT IN ('null', '[]'), false) AS calls,
      CASE WHEN (text LIKE '[{%' OR text = '[]') AND json_type(body, '$$.choices[0].message.content') = 'ARRAY'
        THEN json_transform(body->'$$.choices[0].message.content', '[{"type": "VARCHAR", "text": "VARCHAR"}]')
      END AS chunks
    FROM parsed
  ),
  read AS (
    SELECT
      *,
      CASE
        WHEN chunks IS NOT NULL THEN list_aggregate(list_transform(
          list_filter(chunks, lambda chunk: coalesce(chunk.type, 'text') = 'text'), lambda chunk: chunk.text
        ), 'string_agg', '')
        -- A call of a tool comes with an empty text, or with none.
        WHEN NOT calls THEN text
        WHEN trim(text, E' \n') <> '' THEN text
      END AS content
    FROM chunked
  )
SELECT
  * REPLACE (coalesce(problem, CASE
    WHEN chunks IS NOT NULL AND content IS NULL AND NOT calls
      AND coalesce(finish_reason, '') NOT IN ('length', 'model_length', 'error')
      AND list_contains(list_transform(chunks, lambda chunk: chunk.type), 'thinking')
    THEN 'the response holds only thinking, and no answer'
  END) AS problem),
  NULL::FLOAT[] AS embedding,
  content IS NOT NULL OR calls AS answered
FROM read
