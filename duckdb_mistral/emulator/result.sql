-- What becomes of every request: `echo` has custom_id, the text that may ask for something, the field that is wrong
-- with the request if one is, and the answer. A status of NULL is a request without any answer.
SELECT
  custom_id,
  CASE
    WHEN wrong IS NOT NULL THEN 422
    WHEN NOT coalesce(contains(text, '[['), false) THEN 200
    WHEN asks(text, 'missing') THEN NULL
    ELSE coalesce(TRY_CAST(nullif(regexp_extract(text, '\[\[error (\d{3})\]\]', 1), '') AS INTEGER), 200)
  END AS status,
  CASE
    WHEN wrong IS NOT NULL THEN to_json({
      'detail': [{'loc': ['body', wrong], 'msg': 'Field required, or not as it should be', 'type': 'value_error'}]
    })
    WHEN status = 200 THEN answer
    ELSE to_json({
      'object': 'error',
      'message': 'The request asked for the error ' || status,
      'type': 'invalid_request_error',
      'param': NULL::VARCHAR,
      'code': status::VARCHAR
    })
  END AS body
FROM echo
