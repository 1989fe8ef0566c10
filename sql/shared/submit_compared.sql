-- What is named by = is a comparison, which would be computed here.
WHEN 'BOOLEAN' IN (
  typeof(source), typeof(model), typeof(endpoint), typeof(system), typeof(params), typeof(output),
  typeof(metadata), typeof(timeout_hours), typeof(reuse), typeof(max_cost)
) THEN '{"compared": true}'
