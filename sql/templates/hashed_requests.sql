-- The hash of each request's body.
SELECT custom_id, md5(body) AS request
FROM read_json(
  $file,
  format = 'newline_delimited',
  columns = {custom_id: 'VARCHAR', body: 'JSON'},
  maximum_object_size = 536870912
)
