-- One answer per request of a chat job: the last message's text, echoed. `requests` has custom_id and body;
-- `formats` the example answer of every JSON schema that occurs.
WITH
  read AS (
    SELECT
      custom_id,
      json_transform(body, '{
        "model": "VARCHAR", "max_tokens": "BIGINT",
        "response_format": {"type": "VARCHAR", "json_schema": {"schema": "JSON"}}
      }') AS request,
      body->'$.messages[#-1].content' AS message
    FROM requests
  ),
  texts AS (
    SELECT
      *,
      CASE json_type(message)
        WHEN 'VARCHAR' THEN message->>'$'
        WHEN 'ARRAY' THEN array_to_string(message->>'$[*].text', '')
        ELSE ''
      END AS text
    FROM read
  ),
  asked AS (
    SELECT
      *,
      contains(text, '[[') AS directed,
      CASE WHEN contains(text, '[[error') THEN regexp_extract(text, '\[\[error (\d{3})\]\]', 1) ELSE '' END AS refusal
    FROM texts
  ),
  answers AS (
    SELECT
      asked.*,
      CASE
        WHEN directed AND contains(text, '[[invalid json]]') THEN '{"echo": '
        WHEN request.response_format.type = 'json_object' THEN to_json({'echo': text})::VARCHAR
        WHEN request.response_format.type = 'json_schema' THEN formats.example
        ELSE 'echo: ' || text
      END AS whole
    FROM asked LEFT JOIN formats ON request.response_format.json_schema.schema::VARCHAR = formats.schema
  ),
  cut AS (
    SELECT
      *,
      coalesce(request.max_tokens < len(string_split(whole, ' ')), false)
        OR (directed AND contains(text, '[[length]]')) AS is_cut,
      CASE
        WHEN request.max_tokens IS NOT NULL
          THEN array_to_string(string_split(whole, ' ')[1:request.max_tokens], ' ')
        ELSE whole
      END AS content,
      len(string_split(text, ' ')) AS prompt_tokens
    FROM answers
  )
SELECT
  custom_id,
  TRY_CAST(nullif(refusal, '') AS INTEGER) AS refused,
  CASE
    WHEN refusal <> '' THEN to_json({
      'object': 'error', 'message': 'The request asked for the error ' || refusal, 'type': 'invalid_request_error',
      'param': NULL::VARCHAR, 'code': refusal
    })
    WHEN directed AND contains(text, '[[empty]]') THEN to_json({
      'id': md5(custom_id), 'object': 'chat.completion', 'created': $created, 'model': coalesce(request.model, $model),
      'choices': []::INTEGER[], 'usage': {'prompt_tokens': prompt_tokens, 'completion_tokens': 0, 'total_tokens': prompt_tokens}
    })
    ELSE to_json({
      'id': md5(custom_id),
      'object': 'chat.completion',
      'created': $created,
      'model': coalesce(request.model, $model),
      'choices': [{
        'index': 0,
        'finish_reason': CASE
          WHEN directed AND contains(text, '[[tool_calls]]') THEN 'tool_calls' WHEN is_cut THEN 'length' ELSE 'stop'
        END,
        'message': {
          'role': 'assistant',
          'content': CASE
            WHEN directed AND contains(text, '[[tool_calls]]') THEN NULL
            WHEN directed AND contains(text, '[[chunks]]') THEN to_json([
              {'type': 'thinking', 'thinking': to_json([{'type': 'text', 'text': 'thought'}]), 'text': NULL},
              {'type': 'text', 'thinking': NULL, 'text': content}
            ])
            ELSE to_json(content)
          END,
          'tool_calls': CASE
            WHEN directed AND contains(text, '[[tool_calls]]')
              THEN to_json([{'id': 'call', 'function': {'name': 'echo', 'arguments': '{}'}}])
          END
        }
      }],
      'usage': {
        'prompt_tokens': prompt_tokens,
        'completion_tokens': len(string_split(content, ' ')),
        'total_tokens': prompt_tokens + len(string_split(content, ' '))
      }
    })
  END AS body
FROM cut
WHERE NOT (directed AND contains(text, '[[missing]]'))
