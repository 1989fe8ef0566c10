CREATE OR REPLACE TEMP MACRO mistral_batch_jobs(
  status := NULL, model := NULL, metadata := NULL, created_after := NULL
) AS TABLE
$answered_rows
FROM (
  SELECT mistral_internal_jobs(
    to_json(status)::VARCHAR,
    to_json(model)::VARCHAR,
    to_json(metadata)::VARCHAR,
    -- Python's times end before DuckDB's do; and least(NULL, x) is x.
    epoch_us(CASE WHEN created_after IS NOT NULL THEN greatest(
      '1970-01-01 00:00:00+00'::TIMESTAMPTZ, least('9999-12-30 00:00:00+00'::TIMESTAMPTZ, created_after::TIMESTAMPTZ)
    ) END)
  ) AS answer
)
WHERE system.main.now() IS NOT NULL;
COMMENT ON MACRO TABLE mistral_batch_jobs IS
'The jobs of the workspace as the API lists them, whoever created them, newest first; filtered by status, model, metadata and time of creation.';
