-- What a submit of the same arguments would send and cost. No network, nothing written.
WITH
  ${own}columns AS (
    SELECT list(column_name) AS names FROM (DESCRIBE $source)
  ),
  ${own}checked AS MATERIALIZED (
    SELECT mistral_internal_check($plan, names) AS problem, names FROM ${own}columns
  ),
  source_rows AS $kept (
    SELECT $known_columns WHERE false UNION ALL BY NAME (FROM $source)
  ),
  requests AS (
    SELECT custom_id::VARCHAR AS custom_id, $problem AS problem, $body AS body
    FROM $taken
  ),
  lines AS $kept (
    SELECT
      custom_id,
      problem,
      CASE WHEN problem IS NULL THEN body::JSON END AS body,
      CASE WHEN problem IS NULL
        THEN $line
      END AS line
    FROM requests
  ),
  summary AS (
    SELECT
      count(*) AS rows,
      histogram(problem) AS problems,
      -- Without the CASE, the text would be made of every row.
      min(CASE WHEN problem IS NOT NULL THEN concat(problem, ': ', custom_id) END, 5)
        FILTER (WHERE problem IS NOT NULL AND custom_id IS NOT NULL) AS examples
    FROM lines
  ),
  ids AS (
    SELECT
      count(custom_id) AS custom_ids,
      min(CASE WHEN times > 1 THEN concat(custom_id, ' (', times, ' times)') END, 5) FILTER (WHERE times > 1) AS repeats
    FROM (SELECT custom_id COLLATE C AS custom_id, count(*) AS times FROM lines GROUP BY ALL)
  ),
  sent AS (
    SELECT * FROM lines WHERE problem IS NULL $only_unsent
  ),
  by_model AS (
    SELECT $measures
    FROM (
      SELECT line, fields, json_extract_string(list_extract(fields, 1), '$$') AS model
      FROM (SELECT line, json_extract(body, $fields) AS fields FROM sent)
    )
    GROUP BY model
  ),
  measured AS (
    SELECT list(struct_pack($measured)) AS models FROM by_model
  ),
  pilot AS (
    SELECT $pilot
  ),
  outcome AS (
    SELECT
      CASE WHEN problem IS NULL THEN mistral_internal_estimate($plan, struct_pack(
        rows := rows, custom_ids := custom_ids, repeats := repeats, problems := problems, examples := examples,
        fingerprint := NULL
      ), models, bodies, names) ELSE error(problem) END AS answer
    FROM ${own}checked LEFT JOIN (FROM summary, ids, measured, pilot) ON true
  )
SELECT unnest(CASE WHEN struct_extract(answer, 'error') IS NULL
  THEN struct_extract(answer, 'rows') ELSE error(struct_extract(answer, 'error'))
END, recursive := true)
FROM outcome
