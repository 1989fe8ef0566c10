CREATE OR REPLACE TEMP MACRO mistral_batch_cancel(id) AS TABLE
$answered_rows
FROM (SELECT mistral_internal_cancel(id::VARCHAR) AS answer)
WHERE system.main.now() IS NOT NULL;
COMMENT ON MACRO TABLE mistral_batch_cancel IS
'Asks for the cancellation of the jobs of a submission or job id; answers given so far are kept. One row per job.';
