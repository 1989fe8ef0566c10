-- How what came back compares with what was submitted, by custom_id; requests without one are told by their number.
WITH
  returned AS (
    SELECT custom_id, count(*) AS times FROM read_parquet($results) WHERE custom_id IS NOT NULL GROUP BY custom_id
  ),
  named AS (
    SELECT
      count(*) FILTER (WHERE submitted.custom_id IS NOT NULL AND returned.times IS NOT NULL) AS held,
      count(*) FILTER (WHERE submitted.custom_id IS NOT NULL AND returned.times IS NULL) AS missing,
      count(*) FILTER (WHERE returned.custom_id IS NOT NULL AND submitted.custom_id IS NULL) AS unknown,
      count(*) FILTER (WHERE returned.times > 1) AS repeated,
      count(*) FILTER (WHERE submitted.custom_id IS NULL AND returned.custom_id IS NULL) AS nameless
    FROM submitted FULL JOIN returned ON submitted.custom_id = returned.custom_id
  ),
  answered AS (
    SELECT count(*) AS nameless FROM read_parquet($results) WHERE custom_id IS NULL
  )
SELECT
  named.held + least(named.nameless, answered.nameless) AS held,
  named.missing + greatest(named.nameless - answered.nameless, 0) AS missing,
  named.unknown + greatest(answered.nameless - named.nameless, 0) AS unknown,
  named.repeated
FROM named, answered
