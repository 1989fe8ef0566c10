-- The rows of mistral_batch_status from those of the ledger, in the order of submission. In `known`, `report` is what the
-- API has said of a job, `status` and `succeeded` the word that follows from it or from the step, and `number` how many
-- requests the message is about.
WITH reported AS (
  SELECT
    *,
    json_transform(
      report,
      '{
        "job_id": "VARCHAR", "total_requests": "BIGINT", "completed_requests": "BIGINT",
        "succeeded_requests": "BIGINT", "failed_requests": "BIGINT", "created_at": "BIGINT", "started_at": "BIGINT",
        "completed_at": "BIGINT", "errors": [["JSON"]], "metadata": [["VARCHAR"]], "output_file": "VARCHAR",
        "error_file": "VARCHAR"
      }'
    ) AS told,
    CASE WHEN report IS NULL AND step = 'answered' THEN request_count ELSE 0 END AS answered,
    CASE WHEN report IS NULL AND step = 'answered' THEN created_here_at END AS answered_at
  FROM known
), counted AS (
  SELECT
    *,
    greatest(coalesce(told.total_requests, 0), request_count) AS total,
    coalesce(told.completed_requests, answered) AS completed
  FROM reported
)
SELECT
  submission_id,
  told.job_id AS job_id,
  part,
  status,
  model,
  endpoint,
  total AS total_requests,
  completed AS completed_requests,
  coalesce(told.succeeded_requests, answered) AS succeeded_requests,
  coalesce(told.failed_requests, 0) AS failed_requests,
  CASE WHEN succeeded THEN 1 WHEN total > 0 THEN least(completed, total) / total ELSE 0 END::DOUBLE AS progress,
  coalesce(told.created_at, answered_at) AS created_at,
  told.started_at AS started_at,
  coalesce(told.completed_at, answered_at) AS completed_at,
  checked_at,
  list_concat(
    [{'message': error[1] ->> '$$', 'count': error[2]::BIGINT} for error in coalesce(told.errors, [])],
    CASE WHEN message <> '' THEN [{'message': message, 'count': number}] ELSE [] END
  ) AS errors,
  [{'key': pair[1], 'value': pair[2]} for pair in coalesce(told.metadata, [])] AS metadata,
  told.output_file AS output_file,
  told.error_file AS error_file
FROM counted
ORDER BY submitted_at, submission_id, key
