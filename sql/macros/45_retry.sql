CREATE OR REPLACE TEMP MACRO mistral_batch_retry(id) AS TABLE
$answered_rows
FROM (SELECT mistral_internal_retry(id::VARCHAR) AS answer)
WHERE system.main.now() IS NOT NULL;
COMMENT ON MACRO TABLE mistral_batch_retry IS
'Submits again only the requests of an ended submission or job id that failed or have no result; the results of the submission, or of another program''s job, then hold both runs. One row per job; none if nothing is left.';
