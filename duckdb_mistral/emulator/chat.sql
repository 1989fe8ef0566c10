-- /v1/chat/completions: the last message's text, echoed. `formats` has an example of every JSON schema that occurs.
WITH
  read AS (
    SELECT
      custom_id,
      json_transform(body, '{
        "model": "VARCHAR", "messages": [{"content": "JSON"}], "max_tokens": "BIGINT", "n": "INTEGER",
        "tools": [{"function": {"name": "VARCHAR"}}], "tool_choice": "VARCHAR",
        "response_format": {"type": "VARCHAR", "json_schema": {"schema": "JSON"}}
      }') AS request
    FROM requests
  ),
  texts AS (
    SELECT *, content_text(request.messages[-1].content) AS text, contains(text, '[[') AS directed FROM read
  ),
  answers AS (
    SELECT
      texts.*,
      CASE
        WHEN directed AND asks(text, 'invalid json') THEN '{"echo": '
        WHEN request.response_format.type = 'json_object' THEN to_json({'echo': text})::VARCHAR
        WHEN request.response_format.type = 'json_schema' THEN formats.example
        ELSE 'echo: ' || text
      END AS whole,
      (directed AND asks(text, 'tool_calls')) OR coalesce(request.tool_choice IN ('any', 'required'), false) AS calls
    FROM texts LEFT JOIN formats ON request.response_format.json_schema.schema::VARCHAR = formats.schema
  ),
  cut AS (
    SELECT
      *,
      coalesce(request.max_tokens < tokens(whole), false) OR (directed AND asks(text, 'length')) AS is_cut,
      CASE WHEN request.max_tokens < tokens(whole) THEN first_tokens(whole, request.max_tokens) ELSE whole END
        AS content
    FROM answers
  ),
  messages AS (
    SELECT
      *,
      {
        'role': 'assistant',
        'content': CASE
          WHEN calls THEN NULL
          WHEN directed AND asks(text, 'chunks') THEN json_array(
            {'type': 'thinking', 'thinking': [{'type': 'text', 'text': 'thought'}]}, {'type': 'text', 'text': content}
          )
          ELSE to_json(content)
        END,
        'tool_calls': CASE
          WHEN calls THEN [{
            'id': md5(custom_id)[1:9],
            'function': {'name': coalesce(request.tools[1].function.name, 'echo'), 'arguments': '{}'}
          }]
        END
      } AS message,
      CASE WHEN calls THEN 'tool_calls' WHEN is_cut THEN 'length' ELSE 'stop' END AS finish_reason
    FROM cut
  )
SELECT
  custom_id,
  text,
  CASE WHEN len(coalesce(request.messages, [])) = 0 THEN 'messages' END AS wrong,
  to_json({
    'id': md5(custom_id),
    'object': 'chat.completion',
    'created': $created,
    'model': coalesce(request.model, $model),
    'choices': CASE
      WHEN directed AND asks(text, 'empty') THEN []
      WHEN request.n > 1 THEN list_transform(
        range(request.n),
        lambda number: {'index': number, 'finish_reason': finish_reason, 'message': message}
      )
      ELSE [{'index': 0, 'finish_reason': finish_reason, 'message': message}]
    END,
    'usage': usage(tokens(text), tokens(content))
  }) AS answer
FROM messages
