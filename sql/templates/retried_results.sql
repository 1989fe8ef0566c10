-- Each custom_id from the latest submission that sent it: a retry sends only what was left. COLLATE C, because this
-- runs on the caller's connection, which may take 'a' and 'A' for the same.
WITH retried AS (
  SELECT * FROM ($retries)
  QUALIFY row_number() OVER (PARTITION BY custom_id COLLATE C ORDER BY generation DESC) = 1
)
SELECT $columns FROM $rows WHERE custom_id COLLATE C NOT IN (SELECT custom_id FROM retried)
UNION ALL
SELECT $columns FROM retried
