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
