-- The lines of one result file, as DuckDB reads them itself: the quick way, which any bad line ends.
SELECT
  custom_id, response.status_code AS status_code, response.body AS body, error, ($problem)::VARCHAR AS problem
FROM read_json(
  $file,
  format = 'newline_delimited',
  columns = {custom_id: 'VARCHAR', response: 'STRUCT(status_code INTEGER, body JSON)', error: 'JSON'}
)
