-- The same columns from raw lines, where some are not what they should be: what can be read is, each bad line is told,
-- none is lost.
SELECT
  coalesce(
    document->>'$$.custom_id',
    -- With its quotes the id is JSON by itself: what is escaped in it is read as in any other line.
    try_cast(nullif(regexp_extract(line, '"custom_id"\s*:\s*("(?:[^"\\]|\\.)*")', 1), '') AS JSON)->>'$$'
  ) AS custom_id,
  try_cast(document->>'$$.response.status_code' AS INTEGER) AS status_code,
  document->'$$.response.body' AS body,
  -- In the place of a response may stand what somebody said in between.
  CASE WHEN json_type(document->'$$.response') NOT IN ('OBJECT', 'NULL')
    THEN document->'$$.response' ELSE document->'$$.error'
  END AS error,
  CASE WHEN json_type(document) IS DISTINCT FROM 'OBJECT'
    THEN 'its result line is not valid JSON (byte ' || start || ' of the file)'
  END AS problem
FROM (
  SELECT
    line,
    start,
    CASE WHEN json_valid(line) THEN line::JSON ELSE try_cast($mended AS JSON) END AS document
  FROM $lines
)
WHERE trim(line, E' \t\r\n' || chr(0)) <> ''
