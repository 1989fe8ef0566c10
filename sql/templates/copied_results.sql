-- Results, and again for every row that shares the request of one of them.
WITH sent AS ($results)
SELECT $columns FROM sent
UNION ALL
SELECT $columns FROM (
  SELECT sent.* REPLACE (copies.custom_id AS custom_id, true AS reused)
  FROM sent JOIN read_parquet($copies) AS copies ON sent.custom_id = copies.sent_as
)
