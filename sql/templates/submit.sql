-- One request line per row of the source, written by DuckDB's own vectors; then the whole is handed over, once.
-- The source is the caller's own text; everything else is made of quoted nodes. What stands before the source is
-- named afresh for each source, so that it cannot be a table of the caller's.
WITH
  ${own}columns AS (
    SELECT list(column_name) AS names FROM (DESCRIBE $source)
  ),
  ${own}spool AS MATERIALIZED (
    SELECT CASE WHEN struct_extract(opened, 'error') IS NULL
      THEN struct_extract(opened, 'token') ELSE error(struct_extract(opened, 'error'))
    END AS token
    FROM (
      SELECT mistral_internal_open(
        $plan, names, current_connection_id(), current_query_id(),
        CASE WHEN NOT current_setting('enable_external_access') THEN current_setting('allowed_directories') END
      ) AS opened
      FROM ${own}columns$reached
    )
  ),
  source_rows AS $kept (
    SELECT $known_columns WHERE false UNION ALL BY NAME (FROM $source)
  ),
  requests AS (
    SELECT custom_id::VARCHAR AS custom_id, $problem AS problem, $body AS body
    FROM $taken
  ),
  lines AS (
    SELECT
      custom_id,
      problem,
      md5(body) AS request,
      CASE WHEN problem IS NULL
        THEN $line
      END AS line
    FROM requests
  ),
  hashed AS (
    -- The id last: whoever names ids can look up two long ones with which MD5 begins alike.
    SELECT *, md5_number(concat(request, custom_id)) AS hash FROM lines
  ),
  summary AS (
    SELECT
      count(*) AS rows,
      -- histogram(problem) would let DuckDB 2 go over all rows once more.
      list_aggregate(list(problem) FILTER (WHERE problem IS NOT NULL), 'histogram') AS problems,
      -- Without the CASE, the text would be made of every row.
      min(CASE WHEN problem IS NOT NULL THEN concat(problem, ': ', custom_id) END, 5)
        FILTER (WHERE problem IS NOT NULL AND custom_id IS NOT NULL) AS examples,
      -- The sum of both halves is the same whatever the order of the rows and of the threads.
      concat(
        sum(">>"(hash, 64)::UBIGINT), '-', sum("&"(hash, 18446744073709551615::UHUGEINT)::UBIGINT)
      ) AS fingerprint,
      sum(mistral_internal_spool(token, custom_id, hash(custom_id), request, line)) AS spooled
    FROM hashed, ${own}spool
  ),
  outcome AS (
    SELECT mistral_internal_submit(${own}spool.token, struct_pack(
      rows := rows, custom_ids := NULL, repeats := NULL, problems := problems, examples := examples,
      fingerprint := fingerprint
    )) AS answer
    FROM ${own}spool LEFT JOIN summary ON true
    WHERE spooled IS NULL OR spooled = 0
  )
SELECT unnest(CASE WHEN struct_extract(answer, 'error') IS NULL
  THEN struct_extract(answer, 'rows') ELSE error(struct_extract(answer, 'error'))
END, recursive := true)
FROM outcome
