CREATE OR REPLACE TEMP MACRO mistral_batch_estimate(
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
  force := false,
  pilot := NULL
) AS TABLE
FROM query(mistral_internal_compile('estimate', to_json(struct_pack(
  source := source, model := model, endpoint := endpoint, system := system, params := params, output := output,
  metadata := metadata, timeout_hours := timeout_hours, reuse := reuse, max_cost := max_cost, force := force,
  pilot := pilot
))));
COMMENT ON MACRO TABLE mistral_batch_estimate IS
'What mistral_batch_submit would send for the same arguments, and the most that it can cost in US dollars at batch price. One row; no network and no key, unless pilot := 20 asks the ordinary endpoint that many times.';
