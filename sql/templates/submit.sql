-- One request line per row of the source, written by DuckDB's own vectors; then the whole is handed over, once.
-- The source is the caller's own text; everything else is made of quoted nodes. What stands before the source is
-- named so that no table of the caller's is meant instead.
WITH
  mistral_columns AS (
    SELECT list(column_name) AS names FROM (DESCRIBE $source)
  ),
  mistral_spool AS MATERIALIZED (
    SELECT CASE WHEN opened.error IS NULL THEN opened.token ELSE error(opened.error) END AS token
    FROM (
      SELECT mistral_internal_open($plan, names, current_connection_id(), current_query_id()) AS opened
      FROM mistral_columns
    )
  ),
  source_rows AS (
    SELECT $known_columns WHERE false UNION ALL BY NAME $source
  ),
  requests AS (
    SELECT custom_id::VARCHAR AS custom_id, $problem AS problem, $body AS body FROM source_rows
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
      min(problem || ': ' || custom_id, 5) FILTER (WHERE problem IS NOT NULL) AS examples,
      -- The sum of both halves is the same whatever the order of the rows and of the threads.
      sum((hash >> 64)::UBIGINT) || '-' || sum((hash & 18446744073709551615::UHUGEINT)::UBIGINT) AS fingerprint,
      sum(mistral_internal_spool(token, custom_id, hash(custom_id), request, line)) AS spooled
    FROM hashed, mistral_spool
  ),
  outcome AS (
    SELECT mistral_internal_submit(mistral_spool.token, {
      'rows': rows, 'custom_ids': NULL, 'problems': problems, 'examples': examples, 'fingerprint': fingerprint
    }) AS answer
    FROM mistral_spool LEFT JOIN summary ON true
    WHERE spooled IS NULL OR spooled = 0
  )
SELECT unnest(CASE WHEN answer.error IS NULL THEN answer.rows ELSE error(answer.error) END, recursive := true)
FROM outcome
