-- The request bodies that submit would send. No network, nothing written.
WITH
  ${own}columns AS (
    SELECT list(column_name) AS names FROM (DESCRIBE $source)
  ),
  ${own}checked AS MATERIALIZED (
    SELECT mistral_internal_check($plan, names) AS problem FROM ${own}columns
  ),
  source_rows AS $kept (
    SELECT $known_columns WHERE false UNION ALL BY NAME (FROM $source)
  ),
  requests AS (
    SELECT custom_id::VARCHAR AS custom_id, $problem AS problem, $body AS body, true AS there
    FROM $taken
  )
SELECT custom_id, body::JSON AS body
FROM ${own}checked LEFT JOIN requests ON true
-- What is wrong stands here, where it is looked at whatever columns are asked for, and also where there are no rows.
WHERE CASE
  WHEN ${own}checked.problem IS NOT NULL THEN error(${own}checked.problem)
  WHEN requests.problem IS NOT NULL
    THEN error(concat('The row ', coalesce(custom_id, 'without a custom_id'), ': ', requests.problem, '.'))
  ELSE there
END
