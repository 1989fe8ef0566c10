CREATE OR REPLACE TEMP MACRO mistral_batch_preview(
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
FROM query(mistral_internal_compile('preview', to_json(struct_pack(
  source := source, model := model, endpoint := endpoint, system := system, params := params, output := output,
  metadata := metadata, timeout_hours := timeout_hours, reuse := reuse, max_cost := max_cost, force := force
))));
COMMENT ON MACRO TABLE mistral_batch_preview IS
'The request bodies that mistral_batch_submit would send for the same arguments. No network, no key.';
