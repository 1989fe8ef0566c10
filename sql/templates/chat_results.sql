-- One row per answered request of a chat or completion job. A string and a list of chunks are told apart by their
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
  ),
  judged AS (
    SELECT
      *,
      CASE
        WHEN problem IS NOT NULL THEN problem
        WHEN error IS NOT NULL AND error <> 'null'
          THEN coalesce(error->>'$$.message', error->>'$$.detail', error->>'$$')
        WHEN status_code >= 400
          THEN coalesce(body->>'$$.message', body->>'$$.detail', body->>'$$', 'HTTP ' || status_code)
        WHEN body IS NULL OR body = 'null' THEN 'the result line holds no response'
        WHEN finish_reason = 'error' THEN 'the model ended with finish_reason error'
        WHEN content IS NULL AND (tool_calls IS NULL OR tool_calls IN ('null', '[]'))
          THEN 'the response holds no answer'
      END AS failure
    FROM read
  )
SELECT
  custom_id,
  CASE
    WHEN failure IS NOT NULL THEN 'error'
    WHEN finish_reason IN ('length', 'model_length') THEN 'truncated'
    ELSE 'ok'
  END AS outcome,
  content,
  -- Most answers are prose; only what begins as JSON does is tried.
  CASE WHEN regexp_matches(content, '^\s*([\[{"0-9-]|(true|false|null)\s*$$)') THEN try_cast(content AS JSON) END AS output,
  NULL::FLOAT[] AS embedding,
  failure AS error,
  status_code,
  false AS reused,
  finish_reason,
  answer.usage.prompt_tokens AS prompt_tokens,
  answer.usage.completion_tokens AS completion_tokens,
  answer.usage.total_tokens AS total_tokens,
  coalesce(answer.model, $model) AS model,
  body AS response,
  $job_id AS job_id,
  $submission_id AS submission_id
FROM judged
