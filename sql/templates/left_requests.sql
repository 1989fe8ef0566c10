-- Spools the requests whose custom_id has no answer yet, as submit writes them; tells which they are, whatever the order
-- of the rows and of the threads, NULL for none.
SELECT
  sum((hash >> 64)::UBIGINT) || '-' || sum((hash & 18446744073709551615::UHUGEINT)::UBIGINT) AS fingerprint,
  sum(mistral_internal_write(line, custom_id, request)) AS written
FROM (
  SELECT line, custom_id, md5(body) AS request, md5_number(line) AS hash
  FROM (
    SELECT custom_id, body, $line AS line
    FROM (
      SELECT found[1]->>'$$' AS custom_id, found[2] AS body
      FROM (
        SELECT json_extract(line, ['$$.custom_id', '$$.body']) AS found
        FROM request_lines WHERE trim(line, E' \t\r\n') <> ''
      )
    )
    WHERE custom_id IN (SELECT custom_id FROM ($results) WHERE $left)
  )
)
