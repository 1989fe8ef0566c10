-- Each custom_id from the latest submission that sent it: a retry sends only what was left. COLLATE C, because this
-- runs on the caller's connection, which may take 'a' and 'A' for the same. Rows without a custom_id, which another
-- program's job may have, are never sent again, and an ANTI JOIN lets them through.
WITH retried AS (
  SELECT * FROM ($retries)
  QUALIFY row_number() OVER (PARTITION BY custom_id COLLATE C ORDER BY generation DESC) = 1
)
SELECT $columns FROM $rows AS sent ANTI JOIN retried ON sent.custom_id COLLATE C = retried.custom_id COLLATE C
UNION ALL
SELECT $columns FROM retried
