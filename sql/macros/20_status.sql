CREATE OR REPLACE TEMP MACRO mistral_batch_status(id := NULL) AS TABLE
$answered_rows
FROM (SELECT mistral_internal_status(id::VARCHAR) AS answer)
WHERE system.main.now() IS NOT NULL;
COMMENT ON MACRO TABLE mistral_batch_status IS
'Asks the API for the progress of the jobs of a submission or job id; without an id, of every submission. One row per job.';

CREATE OR REPLACE TEMP MACRO mistral_batch_wait(id, timeout_seconds := NULL) AS TABLE
$answered_rows
FROM (
  -- In short calls: between two of them DuckDB sees that the query was interrupted, and ends it.
  WITH RECURSIVE polls AS (
    -- A constant is folded while the statement is planned, on the thread that Ctrl-C reaches.
    SELECT mistral_internal_wait(id::VARCHAR, timeout_seconds::VARCHAR, NULL) AS answer
    WHERE mistral_internal_listen(true) IS NULL
    UNION ALL
    SELECT mistral_internal_wait(NULL, NULL, struct_extract(answer, 'wait'))
    FROM polls
    WHERE struct_extract(answer, 'wait') IS NOT NULL
  )
  SELECT answer FROM polls WHERE struct_extract(answer, 'wait') IS NULL
)
WHERE system.main.now() IS NOT NULL;
COMMENT ON MACRO TABLE mistral_batch_wait IS
'Returns once every job of a submission or job id has ended, showing progress; after timeout_seconds it raises an error, and the jobs run on. One row per job.';
