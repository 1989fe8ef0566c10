-- Every submitted custom_id exactly once: repeats told or folded, strangers left out, the missing told.
-- Only what is repeated is held and sorted; all else is passed through. Of requests without a custom_id as many come out
-- as were submitted: no two of them are the same.
WITH
  repeated AS (
    SELECT custom_id FROM read_parquet($results) GROUP BY custom_id HAVING count(*) > 1
  ),
  plain AS (
    FROM read_parquet($results) SEMI JOIN submitted USING (custom_id) ANTI JOIN repeated USING (custom_id)
  ),
  graded AS (
    SELECT *, CASE outcome WHEN 'ok' THEN 0 WHEN 'error' THEN 2 ELSE 1 END AS grade
    FROM read_parquet($results) SEMI JOIN submitted USING (custom_id) SEMI JOIN repeated USING (custom_id)
  ),
  -- An answer counts more than the error that a first try ended in.
  best AS (
    SELECT graded.*
    FROM graded JOIN (SELECT custom_id, min(grade) AS grade FROM graded GROUP BY custom_id) USING (custom_id, grade)
  ),
  -- The same JSON can be written in several ways: only where texts differ are their values compared, with their paths.
  differing AS (
    SELECT DISTINCT custom_id, response FROM best
    WHERE grade < 2
    QUALIFY count(DISTINCT response) OVER (PARTITION BY custom_id) > 1
  ),
  compared AS (
    SELECT custom_id, count(DISTINCT written) AS versions
    FROM (
      SELECT
        custom_id,
        string_agg(
          concat(node.fullkey, ' ', regexp_replace(coalesce(node.atom::VARCHAR, node.type), '[.]0$$', '')), chr(10)
          ORDER BY node.fullkey, node.atom
        ) AS written
      FROM differing, json_tree(differing.response) AS node
      GROUP BY custom_id, response
    )
    GROUP BY custom_id
  ),
  summed AS (
    SELECT custom_id, coalesce(any_value(versions), 1) AS versions, string_agg(DISTINCT error, '; ' ORDER BY error) AS errors
    FROM best LEFT JOIN compared USING (custom_id)
    GROUP BY custom_id
  ),
  folded AS (
    SELECT * EXCLUDE (grade, versions, errors) REPLACE (
      CASE WHEN versions > 1 THEN 'error' ELSE outcome END AS outcome,
      CASE WHEN versions > 1
        THEN 'the result files hold ' || versions || ' different answers for this custom_id'
        WHEN grade = 2 THEN errors ELSE error
      END AS error
    )
    FROM best JOIN summed USING (custom_id)
    QUALIFY row_number() OVER (PARTITION BY custom_id ORDER BY status_code DESC NULLS LAST, response) = 1
  ),
  returned AS (
    SELECT custom_id FROM read_parquet($results) WHERE custom_id IS NOT NULL
  ),
  nameless AS MATERIALIZED (
    SELECT count(*) AS requests FROM submitted WHERE custom_id IS NULL
  ),
  passed AS MATERIALIZED (
    SELECT * EXCLUDE (place)
    FROM (
      SELECT *, row_number() OVER (ORDER BY outcome = 'error') AS place FROM read_parquet($results)
      WHERE custom_id IS NULL
    )
    WHERE place <= (SELECT requests FROM nameless)
  ),
  left_out AS (
    SELECT custom_id FROM submitted ANTI JOIN returned USING (custom_id) WHERE custom_id IS NOT NULL
    UNION ALL
    SELECT NULL FROM nameless, range(requests - (SELECT count(*) FROM passed))
  ),
  missing AS (
    SELECT
      custom_id, 'missing' AS outcome, $reason AS error, false AS reused,
      $model AS model, $job_id AS job_id, $submission_id AS submission_id
    FROM left_out
  )
FROM plain UNION ALL BY NAME FROM folded UNION ALL BY NAME FROM passed UNION ALL BY NAME FROM missing
