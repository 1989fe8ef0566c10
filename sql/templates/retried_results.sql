-- Each custom_id from the latest submission that brought its answer or, where none did, from the latest that sent it: an
-- answer may come after its request was sent again. A retry sends only what was left, so what is answered of the rows
-- that no retry has an answer to is little. COLLATE C, because this runs on the caller's connection, which may take 'a'
-- and 'A' for the same; for = on such ids, DuckDB 1.5 would look for arg_min, which may be a macro of the caller's. Rows
-- without a custom_id, which another program's job may have, are never sent again, and an ANTI JOIN lets them through.
WITH retried AS (
  SELECT * FROM ($retries)
  QUALIFY row_number() OVER (PARTITION BY custom_id COLLATE C ORDER BY $left, generation DESC) = 1
),
answered AS (
  SELECT sent.custom_id
  FROM $rows AS sent JOIN (SELECT custom_id FROM retried WHERE $left) AS unanswered
    ON sent.custom_id COLLATE C IS NOT DISTINCT FROM unanswered.custom_id COLLATE C
  WHERE NOT ($left)
),
counting AS (
  SELECT retried.* FROM retried ANTI JOIN answered ON retried.custom_id COLLATE C = answered.custom_id COLLATE C
)
SELECT $columns FROM $rows AS sent ANTI JOIN counting ON sent.custom_id COLLATE C = counting.custom_id COLLATE C
UNION ALL
SELECT $columns FROM counting
