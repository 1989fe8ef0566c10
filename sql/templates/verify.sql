-- How what came back compares with what was submitted, by custom_id.
WITH returned AS (
  SELECT custom_id, count(*) AS times FROM read_parquet($results) GROUP BY custom_id
)
SELECT
  count(*) FILTER (WHERE submitted.custom_id IS NOT NULL AND returned.times IS NOT NULL) AS held,
  count(*) FILTER (WHERE submitted.custom_id IS NOT NULL AND returned.times IS NULL) AS missing,
  count(*) FILTER (WHERE submitted.custom_id IS NULL) AS unknown,
  count(*) FILTER (WHERE returned.times > 1) AS repeated
FROM submitted FULL JOIN returned ON submitted.custom_id = returned.custom_id
