-- Spools the request lines that have to be sent: one of those that are the same, none that was answered.
SELECT sum(mistral_internal_write(line, custom_id, request))
FROM (SELECT line, line->>'$$.custom_id' AS custom_id FROM request_lines)
JOIN (
  SELECT min(custom_id) AS custom_id, request
  FROM wanted WHERE request NOT IN (SELECT request FROM answered) GROUP BY request
) AS unsent USING (custom_id)
