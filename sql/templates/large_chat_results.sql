-- What the lines of a large result file of a chat or completion job say, in one go and without the text of the
-- response, which is cut out of its line when it is asked for. An error's body and a list of chunks need that text:
-- they end this way, and the file is read as others are, as it is for a text that is a list by chance.
SELECT
  * EXCLUDE (choice),
  choice.message.content AS text,
  coalesce(choice.message.tool_calls NOT IN ('null', '[]'), false) AS calls,
  $large_content AS content,
  choice.finish_reason AS finish_reason,
  NULL::FLOAT[] AS embedding,
  text IS NOT NULL OR calls AS answered,
  ($large_problem)::VARCHAR AS problem
FROM (
  SELECT
    custom_id, error, response.status_code AS status_code, response.body AS answer,
    -- Here once, and not once for each of its fields: to look into a list takes time.
    response.body.choices[1] AS choice,
    NULL::JSON AS body
  FROM read_json(
    $file,
    format = 'newline_delimited',
    maximum_object_size = $longest_line,
    columns = {
      custom_id: 'VARCHAR',
      error: 'JSON',
      response: 'STRUCT(status_code INTEGER, body STRUCT(
        model VARCHAR,
        usage STRUCT(prompt_tokens BIGINT, completion_tokens BIGINT, total_tokens BIGINT),
        choices STRUCT(finish_reason VARCHAR, message STRUCT(content VARCHAR, tool_calls JSON))[]
      ))'
    }
  )
)
