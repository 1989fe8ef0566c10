-- The hash of each request's body.
SELECT found[1]->>'$$' AS custom_id, md5(found[2]) AS request
FROM (SELECT json_extract(line, ['$$.custom_id', '$$.body']) AS found FROM $lines)
