CREATE OR REPLACE TEMP MACRO mistral_batch_cost(id) AS TABLE
$answered_rows
FROM (SELECT mistral_internal_cost(id::VARCHAR) AS answer)
WHERE system.main.now() IS NOT NULL;
COMMENT ON MACRO TABLE mistral_batch_cost IS
'What the ended jobs of a submission or job id used, by their own token counts, and what they cost in US dollars at batch price. One row per job.';
