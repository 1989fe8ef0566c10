-- Results, and again for every row that shares the request of one of them. COLLATE C, because this runs on the
-- caller's connection, which may take 'a' and 'A' for the same.
WITH sent AS ($results)
SELECT $columns FROM sent
UNION ALL
SELECT $columns FROM (
  SELECT sent.* REPLACE (copies.custom_id AS custom_id, true AS reused)
  FROM sent JOIN read_parquet($copies) AS copies ON sent.custom_id COLLATE C = copies.sent_as
)
