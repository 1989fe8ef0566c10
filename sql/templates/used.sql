-- What each job used of each model that answered, by their own counts: an answer that was found again cost nothing.
-- A prompt's cached tokens are told in one of three places.
WITH
  read AS (
    SELECT
      submission_id, job_id, model, outcome, status_code, response,
      coalesce(prompt_tokens, total_tokens - completion_tokens) AS prompt_tokens,
      coalesce(completion_tokens, total_tokens - prompt_tokens) AS completion_tokens,
      total_tokens,
      list_transform(
        json_extract_string(response, [
          '$$.usage_info.pages_processed',
          '$$.usage_info.pages_processed_annotation',
          '$$.usage.prompt_audio_seconds',
          '$$.usage.num_cached_tokens',
          '$$.usage.prompt_tokens_details.cached_tokens',
          '$$.usage.prompt_token_details.cached_tokens'
        ]),
        lambda count: CASE WHEN TRY_CAST(count AS BIGINT) < 0 THEN 0 ELSE TRY_CAST(count AS BIGINT) END
      ) AS counts
    FROM $rows
    WHERE job_id IS NOT NULL AND NOT reused
  ),
  metered AS (
    SELECT
      *,
      prompt_tokens IS NOT NULL OR counts[1] IS NOT NULL OR counts[2] IS NOT NULL OR counts[3] IS NOT NULL AS told,
      -- Only CASE spares most rows another look at the response.
      CASE WHEN counts[2] IS NULL AND counts[1] > 0
        THEN response->>'$$.document_annotation' IS NOT NULL OR len(list_filter(
          json_extract(response, '$$.pages[*].images[*].image_annotation'),
          lambda annotation: json_type(annotation) <> 'NULL'
        )) > 0
        ELSE false
      END AS all_annotated
    FROM read
  ),
  judged AS (
    SELECT
      *,
      -- A refused request has a body too, and no usage.
      response IS NOT NULL AND coalesce(status_code, 200) < 400 AND (outcome <> 'error' OR told) AS answered
    FROM metered
  )
SELECT
  any_value(submission_id) AS submission_id,
  job_id,
  model AS answered_by,
  count(*) FILTER (WHERE answered) AS answers,
  coalesce(sum(greatest(prompt_tokens, 0)), 0)::BIGINT AS prompt_tokens,
  coalesce(sum(greatest(completion_tokens, 0)), 0)::BIGINT AS completion_tokens,
  coalesce(sum(greatest(total_tokens, 0)), 0)::BIGINT AS total_tokens,
  coalesce(sum(greatest(counts[4], counts[5], counts[6])), 0)::BIGINT AS cached_tokens,
  coalesce(sum(CASE WHEN all_annotated THEN 0 ELSE counts[1] END), 0)::BIGINT AS pages,
  coalesce(sum(CASE WHEN all_annotated THEN counts[1] ELSE counts[2] END), 0)::BIGINT AS annotated_pages,
  coalesce(sum(counts[3]), 0)::BIGINT AS audio_seconds,
  count(*) FILTER (WHERE answered AND NOT told) AS unmetered,
  count(*) FILTER (WHERE answered AND prompt_tokens IS NOT NULL AND completion_tokens IS NULL) AS unwritten
FROM judged
GROUP BY job_id, model
ORDER BY job_id, answers DESC, model
