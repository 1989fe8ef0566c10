-- The rows whose requests were answered before, each with that answer: job_id is the job that gave it.
SELECT answered.* EXCLUDE (request) REPLACE (
  wanted.custom_id AS custom_id, true AS reused, $submission_id AS submission_id
)
FROM wanted JOIN answered ON wanted.request = answered.request
