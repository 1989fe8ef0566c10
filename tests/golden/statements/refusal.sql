-- What cannot be done has the columns that it would have had, so that the caller reads the sentence and not a
-- complaint about a column. The error stands inside unnest: where the columns are plain NULLs, the optimizer sees that
-- a join or a WHERE lets none through, and leaves the error out.
SELECT system.main.unnest(CASE WHEN system.main.error('timeout_hours must be a whole number from 1 to 168, or 7 days, but is 0. Nothing was sent.') IS NULL THEN system.main.list_value(system.main.struct_pack("submission_id" := NULL::VARCHAR, "job_id" := NULL::VARCHAR, "part" := NULL::INTEGER, "status" := NULL::VARCHAR, "model" := NULL::VARCHAR, "endpoint" := NULL::VARCHAR, "total_requests" := NULL::BIGINT, "input_bytes" := NULL::BIGINT, "reused" := NULL::BOOLEAN, "created_at" := NULL::TIMESTAMPTZ)) END, max_depth := 2)

