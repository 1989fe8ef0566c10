-- The request lines whose custom_id has no answer yet, as submit writes them.
SELECT
  $line AS line,
  custom_id,
  md5(body) AS request
FROM read_json(
  [$requests],
  format = 'newline_delimited',
  columns = {custom_id: 'VARCHAR', body: 'JSON'},
  maximum_object_size = 536870912
)
WHERE custom_id IN (SELECT custom_id FROM ($results) WHERE $left)
