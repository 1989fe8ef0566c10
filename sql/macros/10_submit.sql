CREATE OR REPLACE TEMP MACRO mistral_batch_submit(
  source,
  model := NULL,
  endpoint := '/v1/chat/completions',
  system := NULL,
  params := NULL,
  output := NULL,
  metadata := NULL,
  timeout_hours := 24,
  reuse := 'submission',
  max_cost := NULL,
  force := false
) AS TABLE
FROM query(mistral_internal_compile('submit', to_json(struct_pack(
  source := source, model := model, endpoint := endpoint, system := system, params := params, output := output,
  metadata := metadata, timeout_hours := timeout_hours, reuse := reuse, max_cost := max_cost, force := force
))));
COMMENT ON MACRO TABLE mistral_batch_submit IS
'Sends one request per row of source (a table, a view, a CTE, or the text of a SELECT, with custom_id and prompt) to Mistral''s Batch API; one row per job. The same content again returns the jobs that exist.';
