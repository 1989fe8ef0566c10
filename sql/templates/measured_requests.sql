-- What the requests of a spool make for.
SELECT $measures
FROM (SELECT line->'$$.body' AS body FROM request_lines)
