-- The request lines that have to be sent, as submit writes them: one of those that are the same, none that was answered.
SELECT custom_id, '{"custom_id":' || to_json(custom_id) || ',"body":' || body || '}' || chr(10) AS line
FROM read_json(
  [$requests],
  format = 'newline_delimited',
  columns = {custom_id: 'VARCHAR', body: 'JSON'},
  maximum_object_size = 536870912
)
WHERE custom_id IN (
  SELECT min(custom_id) FROM wanted WHERE request NOT IN (SELECT request FROM answered) GROUP BY request
)
