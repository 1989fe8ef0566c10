CREATE OR REPLACE TEMP MACRO mistral_batch_results(id := 'every ended submission', partial := false) AS TABLE
FROM query(mistral_internal_compile('results', to_json(struct_pack(
  -- What is named by = is a comparison, which would be computed here.
  id := CASE WHEN typeof(id) <> 'BOOLEAN' THEN id END,
  compared := typeof(id) = 'BOOLEAN',
  partial := TRY(partial),
  allowed := CASE WHEN NOT current_setting('enable_external_access') THEN current_setting('allowed_directories') END
))))
WHERE system.main.now() IS NOT NULL;
COMMENT ON MACRO TABLE mistral_batch_results IS
'The results of a submission or job id, or of every ended submission: each custom_id once, with its answer or its error. Downloaded and verified once, then kept.';
