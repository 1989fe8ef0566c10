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
FROM query(mistral_internal_compile('submit', CASE
  -- What is named by = is a comparison, which would be computed here.
  WHEN 'BOOLEAN' IN (
    typeof(source), typeof(model), typeof(endpoint), typeof(system), typeof(params), typeof(output),
    typeof(metadata), typeof(timeout_hours), typeof(reuse), typeof(max_cost)
  ) THEN '{"compared": true}'
  ELSE to_json(struct_pack(
    source := source,
    model := model,
    endpoint := endpoint,
    system := system,
    -- DuckDB 1.5's to_json takes a VARIANT for text.
    params := CASE WHEN typeof(params) = 'VARIANT' THEN params::JSON ELSE to_json(params) END,
    output := CASE WHEN typeof(output) = 'VARIANT' THEN output::JSON ELSE to_json(output) END,
    metadata := CASE WHEN typeof(metadata) = 'VARIANT' THEN metadata::JSON ELSE to_json(metadata) END,
    timeout_hours := timeout_hours,
    reuse := reuse,
    max_cost := max_cost,
    force := force
  ))::VARCHAR
END))
-- In every macro: because of now(), a plan that is kept (PREPARE) is bound anew whenever it runs; it costs nothing.
WHERE system.main.now() IS NOT NULL;
COMMENT ON MACRO TABLE mistral_batch_submit IS
'Sends one request per row of source (a table, a view, a CTE, or the text of a SELECT, with custom_id and prompt) to Mistral''s Batch API; one row per job. Submitting the same content again returns the existing jobs.';
