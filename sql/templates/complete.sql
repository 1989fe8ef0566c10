-- Every submitted custom_id exactly once: repeats told or folded, strangers left out, the missing told.
-- Only what is repeated is held and sorted; all else is passed through.
WITH
  repeated AS (
    SELECT custom_id FROM read_parquet($results) GROUP BY custom_id HAVING count(*) > 1
  ),
  plain AS (
    FROM read_parquet($results) SEMI JOIN submitted USING (custom_id) ANTI JOIN repeated USING (custom_id)
  ),
  ranked AS (
    SELECT
      *,
      row_number() OVER (PARTITION BY custom_id ORDER BY outcome <> 'ok', response) AS place,
      count(DISTINCT coalesce(response::VARCHAR, '')) OVER (PARTITION BY custom_id) AS versions
    FROM read_parquet($results) SEMI JOIN submitted USING (custom_id) SEMI JOIN repeated USING (custom_id)
  ),
  folded AS (
    SELECT * EXCLUDE (place, versions) REPLACE (
      CASE WHEN versions > 1 THEN 'error' ELSE outcome END AS outcome,
      CASE WHEN versions > 1
        THEN 'the result files hold ' || versions || ' different answers for this custom_id' ELSE error
      END AS error
    )
    FROM ranked WHERE place = 1
  ),
  returned AS (
    SELECT custom_id FROM read_parquet($results)
  ),
  missing AS (
    SELECT
      custom_id, 'missing' AS outcome, $reason AS error, false AS reused,
      $model AS model, $job_id AS job_id, $submission_id AS submission_id
    FROM submitted ANTI JOIN returned USING (custom_id)
  )
FROM plain UNION ALL BY NAME FROM folded UNION ALL BY NAME FROM missing
