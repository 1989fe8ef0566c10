CREATE OR REPLACE TEMP MACRO mistral_batch_preview(
  $submit_parameters
) AS TABLE
FROM query(mistral_internal_compile('preview', CASE
  $submit_compared
  ELSE to_json(struct_pack(
    $submit_arguments
  ))::VARCHAR
END))
WHERE system.main.now() IS NOT NULL;
COMMENT ON MACRO TABLE mistral_batch_preview IS
'The request bodies that mistral_batch_submit would send for the same arguments. No network, no key.';
