-- The rows whose request is sent under another row's custom_id.
SELECT wanted.custom_id, sent.sent_as
FROM wanted
JOIN (
  SELECT request, min(custom_id) AS sent_as
  FROM wanted WHERE request NOT IN (SELECT request FROM answered) GROUP BY request
) AS sent ON wanted.request = sent.request
WHERE wanted.custom_id <> sent.sent_as
