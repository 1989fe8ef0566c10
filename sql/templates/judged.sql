-- One row per answered request: what an endpoint answers is read from its lines, and judged here.
WITH
  read AS ($read),
  judged AS (
    SELECT
      *,
      CASE
        WHEN problem IS NOT NULL THEN problem
        WHEN error IS NOT NULL AND error NOT IN ('null', 'false', '""', '{}')
          THEN coalesce(error->>'$$.message', error->>'$$.error.message', error->>'$$.detail', error->>'$$')
        WHEN status_code >= 400
          THEN coalesce(
            body->>'$$.message', body->>'$$.error.message', body->>'$$.detail', body->>'$$', 'HTTP ' || status_code
          )
        WHEN NOT ($responded) THEN 'the result line holds no response'
        WHEN finish_reason = 'error' THEN 'the model ended with finish_reason error'
        WHEN NOT answered AND coalesce(finish_reason, '') NOT IN ('length', 'model_length')
          THEN 'the response holds no answer'
      END AS failure,
      $output AS output
    FROM read
  )
SELECT
  custom_id,
  CASE
    WHEN failure IS NOT NULL THEN 'error'
    WHEN finish_reason IN ('length', 'model_length') THEN 'truncated'
    WHEN $declared AND output IS NULL THEN 'invalid_output'
    ELSE 'ok'
  END AS outcome,
  content,
  output,
  embedding,
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
