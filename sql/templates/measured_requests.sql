-- What the requests of a spool make for.
SELECT $measures
FROM read_json(
  [$requests],
  format = 'newline_delimited',
  columns = {body: 'JSON'},
  maximum_object_size = 536870912
)
