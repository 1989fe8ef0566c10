-- Every submitted custom_id exactly once: repeats told or folded, strangers left out, the missing told.
WITH
  ranked AS (
    SELECT
      *,
      row_number() OVER (PARTITION BY custom_id ORDER BY outcome <> 'ok', response) AS place,
      count(DISTINCT coalesce(response::VARCHAR, '')) OVER (PARTITION BY custom_id) AS versions
    FROM read_parquet($results)
    WHERE custom_id IN (SELECT custom_id FROM submitted)
  ),
  single AS (
    SELECT * EXCLUDE (place, versions) REPLACE (
      CASE WHEN versions > 1 THEN 'error' ELSE outcome END AS outcome,
      CASE WHEN versions > 1
        THEN 'the result files hold ' || versions || ' different answers for this custom_id' ELSE error
      END AS error
    )
    FROM ranked WHERE place = 1
  )
FROM single
UNION ALL BY NAME
SELECT
  custom_id, 'missing' AS outcome, $reason AS error, false AS reused,
  $model AS model, $job_id AS job_id, $submission_id AS submission_id
FROM submitted
WHERE custom_id NOT IN (SELECT custom_id FROM single)
