-- /v1/conversations: the last entry's text, echoed. `formats` has an example of every JSON schema that occurs.
WITH
  read AS (
    SELECT
      custom_id,
      json_transform(body, '{
        "model": "VARCHAR", "agent_id": "VARCHAR", "inputs": "JSON",
        "completion_args": {
          "max_tokens": "BIGINT", "response_format": {"type": "VARCHAR", "json_schema": {"schema": "JSON"}}
        }
      }') AS request
    FROM requests
  ),
  texts AS (
    SELECT
      *,
      request.completion_args.max_tokens AS most,
      request.completion_args.response_format AS format,
      CASE json_type(request.inputs)
        WHEN 'VARCHAR' THEN request.inputs->>'$'
        WHEN 'ARRAY' THEN content_text(request.inputs->'$[#-1].content')
      END AS text
    FROM read
  ),
  answers AS (
    SELECT
      texts.*,
      CASE
        WHEN asks(text, 'invalid json') THEN '{"echo": '
        WHEN format.type = 'json_object' THEN to_json({'echo': text})::VARCHAR
        WHEN format.type = 'json_schema' THEN formats.example
        ELSE 'echo: ' || text
      END AS whole,
      CASE WHEN most < tokens(whole) THEN first_tokens(whole, most) ELSE whole END AS content
    FROM texts LEFT JOIN formats ON format.json_schema.schema::VARCHAR = formats.schema
  )
SELECT
  custom_id,
  text,
  CASE WHEN text IS NULL THEN 'inputs' END AS wrong,
  to_json({
    'object': 'conversation.response',
    'conversation_id': 'conv_' || md5(custom_id),
    'outputs': CASE
      WHEN asks(text, 'empty') THEN []
      ELSE [{
        'object': 'entry',
        'type': 'message.output',
        'id': 'msg_' || md5(custom_id),
        'created_at': strftime(to_timestamp($created) AT TIME ZONE 'UTC', '%Y-%m-%dT%H:%M:%SZ'),
        'completed_at': strftime(to_timestamp($created) AT TIME ZONE 'UTC', '%Y-%m-%dT%H:%M:%SZ'),
        'agent_id': request.agent_id,
        'model': coalesce(request.model, $model),
        'role': 'assistant',
        'content': CASE
          WHEN asks(text, 'chunks') THEN json_array({'type': 'text', 'text': content})
          ELSE to_json(content)
        END
      }]
    END,
    'usage': usage(tokens(text), tokens(content))
  }) AS answer
FROM answers
