CREATE OR REPLACE TEMP MACRO mistral_batch_submit(
  $submit_parameters
) AS TABLE
FROM query(mistral_internal_compile('submit', CASE
  $submit_compared
  ELSE to_json(struct_pack(
    $submit_arguments,
    allowed := CASE WHEN NOT current_setting('enable_external_access') THEN current_setting('allowed_directories') END
  ))::VARCHAR
END))
-- In every macro: because of now(), a plan that is kept (PREPARE) is bound again whenever it runs; it costs nothing.
WHERE system.main.now() IS NOT NULL;
COMMENT ON MACRO TABLE mistral_batch_submit IS
'Sends one request per row of source (a table, a view, a CTE, or the text of a SELECT, with custom_id and prompt) to Mistral''s Batch API; one row per job. Submitting the same content again returns the existing jobs.';
