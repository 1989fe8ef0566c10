-- The request bodies that submit would send. No network, nothing written.
WITH
  mistral_columns AS (
    SELECT list(column_name) AS names FROM (DESCRIBE $source)
  ),
  mistral_checked AS MATERIALIZED (
    SELECT mistral_internal_check($plan, names) AS problem FROM mistral_columns
  ),
  source_rows AS (
    SELECT $known_columns WHERE false UNION ALL BY NAME $source
  ),
  requests AS (
    SELECT custom_id::VARCHAR AS custom_id, $problem AS problem, $body AS body FROM source_rows
  )
SELECT
  CASE WHEN mistral_checked.problem IS NULL THEN custom_id ELSE error(mistral_checked.problem) END AS custom_id,
  CASE WHEN requests.problem IS NULL THEN body
    ELSE error('The row ' || coalesce(custom_id, 'without a custom_id') || ': ' || requests.problem || '.')
  END::JSON AS body
FROM requests, mistral_checked
