-- Each custom_id from the latest submission that sent it: a retry sends only what was left.
WITH retried AS (
  SELECT * FROM ($retries) QUALIFY row_number() OVER (PARTITION BY custom_id ORDER BY generation DESC) = 1
)
SELECT $columns FROM $rows WHERE custom_id NOT IN (SELECT custom_id FROM retried)
UNION ALL
SELECT $columns FROM retried
