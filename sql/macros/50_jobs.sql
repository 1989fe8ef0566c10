CREATE OR REPLACE TEMP MACRO mistral_batch_jobs(
  status := NULL, model := NULL, metadata := NULL, created_after := NULL
) AS TABLE
SELECT unnest(CASE WHEN answer.error IS NULL THEN answer.rows ELSE error(answer.error) END, recursive := true)
FROM (
  SELECT mistral_internal_jobs(
    to_json(status)::VARCHAR, model, to_json(metadata)::VARCHAR, created_after::TIMESTAMPTZ
  ) AS answer
);
COMMENT ON MACRO TABLE mistral_batch_jobs IS
'The jobs of the workspace as the API lists them, whoever created them, newest first; filtered by status, model, metadata and time of creation.';
