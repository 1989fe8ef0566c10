SELECT NULL::VARCHAR AS "custom_id", NULL::VARCHAR AS "outcome", NULL::VARCHAR AS "content", NULL::"system".main."JSON" AS "output", NULL::FLOAT[] AS "embedding", NULL::VARCHAR AS "error", NULL::INTEGER AS "status_code", NULL::BOOLEAN AS "reused", NULL::VARCHAR AS "finish_reason", NULL::BIGINT AS "prompt_tokens", NULL::BIGINT AS "completion_tokens", NULL::BIGINT AS "total_tokens", NULL::VARCHAR AS "model", NULL::"system".main."JSON" AS "response", NULL::VARCHAR AS "job_id", NULL::VARCHAR AS "submission_id" WHERE false

(-- The results of submissions and jobs, kept as Parquet.
SELECT "custom_id", "outcome", "content", TRY_CAST("output" AS STRUCT(mood VARCHAR)) AS "output", "embedding", "error", "status_code", "reused", "finish_reason", "prompt_tokens", "completion_tokens", "total_tokens", "model", "response", "job_id", "submission_id" FROM (SELECT * FROM system.main.read_parquet(system.main.list_value('results/1.parquet', 'results/2.parquet')))
)

(-- The results of submissions and jobs, kept as Parquet.
SELECT "custom_id", "outcome", "content", TRY_CAST("output" AS "system".main."JSON") AS "output", "embedding", "error", "status_code", "reused", "finish_reason", "prompt_tokens", "completion_tokens", "total_tokens", "model", "response", "job_id", "submission_id" FROM (SELECT * FROM system.main.read_parquet(system.main.list_value('results/1.parquet', 'results/2.parquet')))
) UNION ALL (-- Each custom_id from the latest submission that brought its answer or, where none did, from the latest that sent it: an
-- answer may come after its request was sent again. A retry sends only what was left, so what is answered of the rows
-- that no retry has an answer to is little. COLLATE C, because this runs on the caller's connection, which may take 'a'
-- and 'A' for the same; for = on such ids, DuckDB 1.5 would look for arg_min, which may be a macro of the caller's. Rows
-- without a custom_id, which another program's job may have, are never sent again, and an ANTI JOIN lets them through.
WITH retried AS (
  SELECT * FROM (SELECT *, 0 AS generation FROM (SELECT * FROM system.main.read_parquet(system.main.list_value('results/4.parquet'))))
  QUALIFY system.main.row_number() OVER (PARTITION BY custom_id COLLATE C ORDER BY outcome IN ('error', 'missing'), generation DESC) = 1
),
answered AS (
  SELECT sent.custom_id
  FROM (SELECT * FROM system.main.read_parquet(system.main.list_value('results/3.parquet'))) AS sent JOIN (SELECT custom_id FROM retried WHERE outcome IN ('error', 'missing')) AS unanswered
    ON sent.custom_id COLLATE C IS NOT DISTINCT FROM unanswered.custom_id COLLATE C
  WHERE NOT (outcome IN ('error', 'missing'))
),
counting AS (
  SELECT retried.* FROM retried ANTI JOIN answered ON retried.custom_id COLLATE C = answered.custom_id COLLATE C
)
SELECT "custom_id", "outcome", "content", TRY_CAST("output" AS "system".main."JSON") AS "output", "embedding", "error", "status_code", "reused", "finish_reason", "prompt_tokens", "completion_tokens", "total_tokens", "model", "response", "job_id", 'an-id'::VARCHAR AS "submission_id" FROM (SELECT * FROM system.main.read_parquet(system.main.list_value('results/3.parquet'))) AS sent ANTI JOIN counting ON sent.custom_id COLLATE C = counting.custom_id COLLATE C
UNION ALL
SELECT "custom_id", "outcome", "content", TRY_CAST("output" AS "system".main."JSON") AS "output", "embedding", "error", "status_code", "reused", "finish_reason", "prompt_tokens", "completion_tokens", "total_tokens", "model", "response", "job_id", 'an-id'::VARCHAR AS "submission_id" FROM counting
) UNION ALL (-- Results, and again for every row that shares the request of one of them. COLLATE C, because this runs on the
-- caller's connection, which may take 'a' and 'A' for the same.
WITH sent AS (-- The results of submissions and jobs, kept as Parquet.
SELECT "custom_id", "outcome", "content", "output", "embedding", "error", "status_code", "reused", "finish_reason", "prompt_tokens", "completion_tokens", "total_tokens", "model", "response", "job_id", "submission_id" FROM (SELECT * FROM system.main.read_parquet(system.main.list_value('results/5.parquet')))
)
SELECT "custom_id", "outcome", "content", TRY_CAST("output" AS "system".main."JSON") AS "output", "embedding", "error", "status_code", "reused", "finish_reason", "prompt_tokens", "completion_tokens", "total_tokens", "model", "response", "job_id", "submission_id" FROM sent
UNION ALL
SELECT "custom_id", "outcome", "content", TRY_CAST("output" AS "system".main."JSON") AS "output", "embedding", "error", "status_code", "reused", "finish_reason", "prompt_tokens", "completion_tokens", "total_tokens", "model", "response", "job_id", "submission_id" FROM (
  SELECT sent.* REPLACE (copies.custom_id AS custom_id, true AS reused)
  FROM sent JOIN system.main.read_parquet('results/copies-three.parquet') AS copies ON sent.custom_id COLLATE C = copies.sent_as
)
)
