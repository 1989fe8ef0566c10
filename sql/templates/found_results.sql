-- The rows whose requests were answered in one results file, each with that answer: job_id is the job that gave it.
SELECT results.* REPLACE (found.custom_id AS custom_id, true AS reused, $submission_id AS submission_id)
FROM $results AS results
JOIN (
  SELECT wanted.custom_id, answered.answered_as
  FROM wanted JOIN answered ON wanted.request = answered.request
  WHERE answered.file = $file
) AS found ON results.custom_id = found.answered_as
WHERE results.outcome = 'ok'
