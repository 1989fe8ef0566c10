-- What the requests of a spool make for, by the model that each names itself.
SELECT $measures
FROM (
  SELECT line, fields, fields[1]->>'$$' AS model
  FROM (SELECT line, json_extract(line->'$$.body', $fields) AS fields FROM request_lines)
)
GROUP BY model
