-- What a conversation job answered: the text of its messages, each a string or a list of chunks, joined by a blank line.
SELECT
  * REPLACE ({'model': answer.outputs[-1].model, 'usage': answer.usage} AS answer),
  nullif(array_to_string(list_transform(
    list_filter(answer.outputs, lambda entry: entry.type = 'message.output'),
    lambda entry: CASE json_type(entry.content)
      WHEN 'VARCHAR' THEN entry.content->>'$$'
      ELSE array_to_string(list_transform(
        list_filter(
          json_transform(entry.content, '[{"type": "VARCHAR", "text": "VARCHAR"}]'),
          lambda chunk: chunk.type = 'text'
        ),
        lambda chunk: chunk.text
      ), '')
    END
  ), E'\n\n'), '') AS content,
  NULL::FLOAT[] AS embedding,
  NULL::VARCHAR AS finish_reason,
  coalesce(len(answer.outputs), 0) > 0 AS answered
FROM (
  SELECT *, json_transform(body, '{
    "usage": {"prompt_tokens": "BIGINT", "completion_tokens": "BIGINT", "total_tokens": "BIGINT"},
    "outputs": [{"type": "VARCHAR", "model": "VARCHAR", "content": "JSON"}]
  }') AS answer
  FROM answers
)
