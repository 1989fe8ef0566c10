-- What a conversation job answered: the text of its messages, each a string or a list of chunks, joined by a blank line.
SELECT
  * REPLACE ({'model': answer.outputs[-1].model, 'usage': answer.usage} AS answer),
  nullif(array_to_string(texts, E'\n\n'), '') AS content,
  NULL::FLOAT[] AS embedding,
  NULL::VARCHAR AS finish_reason,
  -- A message of thinking alone is no answer; what else an agent did is in `response`.
  len(list_filter(texts, lambda text: text IS NOT NULL)) > 0
    OR len(list_filter(answer.outputs, lambda entry: entry.type IS DISTINCT FROM 'message.output')) > 0 AS answered
FROM (
  SELECT
    *,
    list_transform(
      list_filter(answer.outputs, lambda entry: entry.type = 'message.output'),
      lambda entry: CASE json_type(entry.content)
        WHEN 'VARCHAR' THEN entry.content->>'$$'
        WHEN 'ARRAY' THEN list_aggregate(list_transform(
          list_filter(
            json_transform(entry.content, '[{"type": "VARCHAR", "text": "VARCHAR"}]'),
            lambda chunk: coalesce(chunk.type, 'text') = 'text'
          ),
          lambda chunk: chunk.text
        ), 'string_agg', '')
      END
    ) AS texts
  FROM (
    SELECT *, json_transform(body, '{
      "usage": {"prompt_tokens": "BIGINT", "completion_tokens": "BIGINT", "total_tokens": "BIGINT"},
      "outputs": [{"type": "VARCHAR", "model": "VARCHAR", "content": "JSON"}]
    }') AS answer
    FROM answers
  )
)
