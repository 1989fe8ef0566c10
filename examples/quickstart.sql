-- The main path in plain SQL. In the official DuckDB shell, from the root of the repository:
--   duckdb-mistral shell -f examples/quickstart.sql

CREATE OR REPLACE TABLE addresses AS
FROM 'examples/data/addresses.csv' LIMIT 20;

CREATE OR REPLACE VIEW staging AS
SELECT id AS custom_id, opening AS prompt FROM addresses;

-- One row per job. Submitting the same content again returns the existing job, and costs nothing.
SELECT submission_id, job_id, total_requests, reused
FROM mistral_batch_submit('staging', system := 'Summarise in one sentence.');

SET VARIABLE submission = (
  SELECT submission_id FROM mistral_batch_submit('staging', system := 'Summarise in one sentence.') LIMIT 1
);

SELECT status, completed_requests, total_requests FROM mistral_batch_status(getvariable('submission'));

SELECT status, succeeded_requests FROM mistral_batch_wait(getvariable('submission'));

SELECT a.year, a.president, r.outcome, r.content
FROM addresses a
JOIN mistral_batch_results(getvariable('submission')) r ON r.custom_id = a.id::VARCHAR
ORDER BY a.year;
