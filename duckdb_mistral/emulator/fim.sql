-- /v1/fim/completions: the prompt, echoed, and what follows it.
WITH
  read AS (
    SELECT
      custom_id,
      json_transform(body, '{"model": "VARCHAR", "prompt": "VARCHAR", "suffix": "VARCHAR", "max_tokens": "BIGINT"}')
        AS request
    FROM requests
  ),
  answers AS (SELECT *, concat('echo: ', request.prompt, request.suffix) AS whole FROM read),
  cut AS (
    SELECT
      *,
      coalesce(request.max_tokens < tokens(whole), false) OR coalesce(asks(request.prompt, 'length'), false) AS is_cut,
      CASE WHEN request.max_tokens < tokens(whole) THEN first_tokens(whole, request.max_tokens) ELSE whole END
        AS content
    FROM answers
  )
SELECT
  custom_id,
  request.prompt AS text,
  CASE WHEN request.prompt IS NULL THEN 'prompt' END AS wrong,
  to_json({
    'id': md5(custom_id),
    'object': 'chat.completion',
    'created': $created,
    'model': coalesce(request.model, $model),
    'choices': CASE
      WHEN asks(request.prompt, 'empty') THEN []
      ELSE [{
        'index': 0,
        'finish_reason': CASE WHEN is_cut THEN 'length' ELSE 'stop' END,
        'message': {'role': 'assistant', 'content': content, 'tool_calls': NULL::INTEGER[], 'prefix': false}
      }]
    END,
    'usage': usage(tokens(request.prompt), tokens(content))
  }) AS answer
FROM cut
