-- The request lines that have to be sent, as submit writes them: one of those that are the same, none that was answered.
SELECT
  $line AS line,
  custom_id,
  request
FROM read_json(
  [$requests],
  format = 'newline_delimited',
  columns = {custom_id: 'VARCHAR', body: 'JSON'},
  maximum_object_size = 536870912
)
JOIN (
  SELECT min(custom_id) AS custom_id, request
  FROM wanted WHERE request NOT IN (SELECT request FROM answered) GROUP BY request
) AS unsent USING (custom_id)
