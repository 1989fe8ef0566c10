-- What an OCR job answered: the pages' markdown, in the order of the pages. It is priced by the page and counts no tokens.
SELECT
  *,
  array_to_string(
    list_transform(list_sort(list_filter(answer.pages, lambda page: page.markdown IS NOT NULL)), lambda page: page.markdown),
    E'\n\n'
  ) AS content,
  NULL::FLOAT[] AS embedding,
  NULL::VARCHAR AS finish_reason,
  answer.pages IS NOT NULL AS answered
FROM (
  SELECT *, json_transform(body, '{
    "model": "VARCHAR",
    "usage": {"prompt_tokens": "BIGINT", "completion_tokens": "BIGINT", "total_tokens": "BIGINT"},
    "pages": [{"index": "BIGINT", "markdown": "VARCHAR"}]
  }') AS answer
  FROM answers
)
