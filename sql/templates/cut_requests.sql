-- Spools the request lines of one part of a submission, which its keys name.
SELECT sum(mistral_internal_write(line, custom_id, request))
FROM (SELECT line, line->>'$$.custom_id' AS custom_id FROM request_lines)
JOIN part_keys USING (custom_id)
