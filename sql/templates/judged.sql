-- One row per answered request: what an endpoint answers is read from its lines, and judged here.
WITH
  read AS ($read),
  parsed AS (
    SELECT
      *,
      $parsed AS parsed,
      $said AS said
    FROM read
  ),
  held AS (
    SELECT
      *,
      CASE
        WHEN problem IS NOT NULL THEN problem
        WHEN said IS NOT NULL OR status_code >= 400 THEN coalesce($told, 'HTTP ' || status_code, said::VARCHAR)
        WHEN NOT ($responded) THEN 'the result line holds no response'
        WHEN finish_reason = 'error' THEN 'the model ended with finish_reason error'
        WHEN NOT answered AND coalesce(finish_reason, '') NOT IN ('length', 'model_length')
          THEN 'the response holds no answer'
      END AS failure,
      -- If an answer is missing or cut short, only that is said.
      CASE WHEN $declared THEN $misfit END AS misfit
    FROM parsed
  ),
  judged AS (
    SELECT
      *,
      CASE
        WHEN failure IS NOT NULL THEN 'error'
        WHEN finish_reason IN ('length', 'model_length') THEN 'truncated'
        WHEN misfit IS NOT NULL THEN 'invalid_output'
        ELSE 'ok'
      END AS outcome
    FROM held
  )
SELECT
  custom_id,
  outcome,
  content,
  CASE WHEN misfit IS NULL THEN parsed END AS output,
  embedding,
  CASE
    WHEN failure IS NOT NULL THEN failure
    WHEN finish_reason IN ('length', 'model_length') THEN 'the model ran out of tokens'
      || coalesce(' after ' || answer.usage.completion_tokens || ' of them', '') || ' (finish_reason ' || finish_reason || ')'
    WHEN misfit IS NOT NULL THEN 'the answer does not fit the declared output: ' || misfit
  END AS error,
  status_code,
  false AS reused,
  finish_reason,
  answer.usage.prompt_tokens AS prompt_tokens,
  answer.usage.completion_tokens AS completion_tokens,
  answer.usage.total_tokens AS total_tokens,
  coalesce(answer.model, $model) AS model,
  $response AS response,
  $job_id AS job_id,
  $submission_id AS submission_id
FROM judged
