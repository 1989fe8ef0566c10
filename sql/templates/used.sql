-- What each job used, by its own counts: an answer that was found again cost nothing.
SELECT
  any_value(submission_id) AS submission_id,
  job_id,
  any_value(model) AS answered_by,
  count(*) FILTER (WHERE response IS NOT NULL OR status_code IS NOT NULL) AS answers,
  coalesce(sum(prompt_tokens), 0)::BIGINT AS prompt_tokens,
  coalesce(sum(completion_tokens), 0)::BIGINT AS completion_tokens,
  coalesce(sum(total_tokens), 0)::BIGINT AS total_tokens,
  coalesce(sum(TRY_CAST(response->>'$$.usage_info.pages_processed' AS BIGINT)), 0)::BIGINT AS pages,
  coalesce(sum(TRY_CAST(response->>'$$.usage.prompt_audio_seconds' AS BIGINT)), 0)::BIGINT AS audio_seconds
FROM $rows
WHERE job_id IS NOT NULL AND NOT reused
GROUP BY job_id
ORDER BY job_id
