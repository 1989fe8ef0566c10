-- One request line per row of the source, written by DuckDB's own vectors; then the whole is handed over, once.
-- The source is the caller's own text; everything else is made of quoted nodes. What stands before the source is
-- named afresh for each source, so that it cannot be a table of the caller's.
WITH
  mistral_830f78e090fe8aec00891405dfc14824_columns AS (
    SELECT system.main.list(column_name) AS names FROM (DESCRIBE (
FROM staging
))
  ),
  mistral_830f78e090fe8aec00891405dfc14824_spool AS MATERIALIZED (
    SELECT CASE WHEN system.main.struct_extract(opened, 'error') IS NULL
      THEN system.main.struct_extract(opened, 'token') ELSE system.main.error(system.main.struct_extract(opened, 'error'))
    END AS token
    FROM (
      SELECT system.main.mistral_internal_open(
        '{"endpoint": "/v1/embeddings", "models": ["a-model"], "timeout_hours": 24, "metadata": [], "output": null, "max_cost": null, "reuse_requests": false, "force": false, "retry_of": null}', names, system.main.current_connection_id(), system.main.current_query_id(),
        CASE WHEN NOT system.main.current_setting('enable_external_access') THEN system.main.current_setting('allowed_directories') END
      ) AS opened
      FROM mistral_830f78e090fe8aec00891405dfc14824_columns, (SELECT system.main.count(*) AS reached FROM system.main.glob('/home/*'))
    )
  ),
  source_rows AS  (
    SELECT NULL AS "custom_id", NULL AS "body", NULL AS "input", NULL AS "model", NULL AS "metadata", NULL AS "output_dimension", NULL AS "output_dtype", NULL AS "encoding_format" WHERE false UNION ALL BY NAME (FROM (
FROM staging
))
  ),
  requests AS (
    SELECT custom_id::VARCHAR AS custom_id, CASE WHEN custom_id IS NULL THEN 'no custom_id' WHEN body IS NOT NULL AND ("input" IS NOT NULL) THEN 'both body and input' WHEN body IS NOT NULL AND (has_options) THEN 'a body beside other fields of the request' WHEN body IS NOT NULL AND coalesce(system.main.json_type(TRY_CAST("body" AS "system".main."JSON")), '') <> 'OBJECT' THEN 'a body that is not a JSON object (text belongs in input)' WHEN body IS NULL AND NOT ("input" IS NOT NULL) THEN 'no input' WHEN "input" IS NOT NULL AND coalesce(system.main.json_type(TRY_CAST("input" AS "system".main."JSON")), '') = 'ARRAY' AND system.main.json_array_length(TRY_CAST("input" AS "system".main."JSON")) = 0 THEN 'an empty list of input' WHEN "input" IS NOT NULL AND NOT system.main.typeof("input") = 'VARCHAR' AND coalesce(system.main.json_type(TRY_CAST("input" AS "system".main."JSON")), '') = 'OBJECT' THEN 'an input that is neither text nor a list' WHEN '' IN ("metadata", "output_dimension") THEN system.main.list_extract(system.main.list_value('a metadata that is not JSON', 'an output_dimension that is not JSON'), system.main.list_position(system.main.list_value("metadata", "output_dimension"), '')) WHEN "body" IS NOT NULL AND NOT system.main.regexp_full_match(CASE WHEN system.main.typeof("body") = 'VARCHAR' THEN "body"::VARCHAR ELSE system.main.to_json("body")::VARCHAR END, '(?s)(null|true|false|[-+0-9.eE{}\[\]:,\s]|"([^"\\]|\\.)*")*') THEN 'a number in body that is NaN or infinite' WHEN "input" IS NOT NULL AND system.main.regexp_matches(system.main.typeof("input"), 'FLOAT|DOUBLE|JSON|VARIANT') AND NOT system.main.regexp_full_match(CASE WHEN system.main.typeof("input") = 'VARCHAR' THEN "input"::VARCHAR ELSE system.main.to_json("input")::VARCHAR END, '(?s)(null|true|false|[-+0-9.eE{}\[\]:,\s]|"([^"\\]|\\.)*")*') THEN 'a number in input that is NaN or infinite' WHEN has_options AND NOT system.main.regexp_full_match(options, '(?s)(null|true|false|[-+0-9.eE{}\[\]:,\s]|"([^"\\]|\\.)*")*') THEN system.main.list_extract(system.main.list_value('a number in model that is NaN or infinite', 'a number in metadata that is NaN or infinite', 'a number in output_dimension that is NaN or infinite', 'a number in output_dtype that is NaN or infinite', 'a number in encoding_format that is NaN or infinite'), system.main.list_position(system.main.list_transform(system.main.list_value("model", "metadata", "output_dimension", "output_dtype", "encoding_format"), lambda text: system.main.regexp_full_match(text, '(?s)(null|true|false|[-+0-9.eE{}\[\]:,\s]|"([^"\\]|\\.)*")*')), false)) END AS problem, CASE WHEN body IS NULL THEN system.main.concat('{', '"input":', CASE WHEN system.main.typeof("input") IN ('JSON', 'VARIANT') OR system.main.regexp_matches(system.main.typeof("input"), '\]$|^(STRUCT|MAP|UNION)\(') THEN CASE WHEN system.main.typeof("input") = 'VARIANT' THEN "input"::"system".main."JSON" ELSE system.main.to_json("input") END ELSE system.main.to_json("input"::VARCHAR) END, options, '}') ELSE (system.main.to_json(TRY_CAST("body" AS "system".main."JSON")))::VARCHAR END AS body
    FROM (SELECT *, CASE WHEN has_options THEN system.main.concat(system.main."||"(',"model":', system.main.nullif("model", 'null')), system.main."||"(',"metadata":', system.main.nullif("metadata", 'null')), system.main."||"(',"output_dimension":', system.main.nullif("output_dimension", 'null')), system.main."||"(',"output_dtype":', system.main.nullif("output_dtype", 'null')), system.main."||"(',"encoding_format":', system.main.nullif("encoding_format", 'null'))) END AS options FROM (SELECT * REPLACE (CASE WHEN has_options THEN CASE WHEN system.main.typeof("model") IN ('FLOAT', 'DOUBLE') AND "model"::VARCHAR IN ('nan', '-nan', 'inf', '-inf') THEN "model"::VARCHAR ELSE (CASE WHEN system.main.typeof("model") = 'JSON' THEN system.main.to_json("model") ELSE system.main.to_json("model"::VARCHAR) END)::VARCHAR END END AS "model", CASE WHEN has_options THEN coalesce((system.main.to_json(TRY_CAST("metadata" AS "system".main."JSON")))::VARCHAR, CASE WHEN "metadata" IS NOT NULL THEN '' END) END AS "metadata", CASE WHEN has_options THEN coalesce((system.main.regexp_replace(system.main.to_json(TRY_CAST("output_dimension" AS "system".main."JSON"))::VARCHAR, '[.]0$', ''))::VARCHAR, CASE WHEN "output_dimension" IS NOT NULL THEN '' END) END AS "output_dimension", CASE WHEN has_options THEN CASE WHEN system.main.typeof("output_dtype") IN ('FLOAT', 'DOUBLE') AND "output_dtype"::VARCHAR IN ('nan', '-nan', 'inf', '-inf') THEN "output_dtype"::VARCHAR ELSE (CASE WHEN system.main.typeof("output_dtype") = 'JSON' THEN system.main.to_json("output_dtype") ELSE system.main.to_json("output_dtype"::VARCHAR) END)::VARCHAR END END AS "output_dtype", CASE WHEN has_options THEN CASE WHEN system.main.typeof("encoding_format") IN ('FLOAT', 'DOUBLE') AND "encoding_format"::VARCHAR IN ('nan', '-nan', 'inf', '-inf') THEN "encoding_format"::VARCHAR ELSE (CASE WHEN system.main.typeof("encoding_format") = 'JSON' THEN system.main.to_json("encoding_format") ELSE system.main.to_json("encoding_format"::VARCHAR) END)::VARCHAR END END AS "encoding_format") FROM (SELECT CASE WHEN system.main.typeof("custom_id") = 'JSON' AND system.main.json_type(system.main.to_json("custom_id")) = 'NULL' THEN NULL ELSE "custom_id" END AS "custom_id", "body" AS "body", CASE WHEN system.main.typeof("input") = 'JSON' AND system.main.json_type(system.main.to_json("input")) = 'NULL' THEN NULL ELSE "input" END AS "input", "model" AS "model", "metadata" AS "metadata", "output_dimension" AS "output_dimension", "output_dtype" AS "output_dtype", "encoding_format" AS "encoding_format", "model" IS NOT NULL OR "metadata" IS NOT NULL OR "output_dimension" IS NOT NULL OR "output_dtype" IS NOT NULL OR "encoding_format" IS NOT NULL AS has_options FROM source_rows)))
  ),
  lines AS (
    SELECT
      custom_id,
      problem,
      system.main.md5(body) AS request,
      CASE WHEN problem IS NULL
        THEN system.main.concat('{"custom_id":', CASE WHEN system.main.contains(custom_id, system.main.chr(8232)) OR system.main.contains(custom_id, system.main.chr(8233)) OR system.main.contains(custom_id, system.main.chr(133)) THEN system.main.replace(system.main.replace(system.main.replace(system.main.to_json(custom_id)::VARCHAR, system.main.chr(8232), '\u2028'), system.main.chr(8233), '\u2029'), system.main.chr(133), '\u0085') ELSE system.main.to_json(custom_id)::VARCHAR END, ',"body":', CASE WHEN system.main.contains(body, system.main.chr(8232)) OR system.main.contains(body, system.main.chr(8233)) OR system.main.contains(body, system.main.chr(133)) THEN system.main.replace(system.main.replace(system.main.replace(body::VARCHAR, system.main.chr(8232), '\u2028'), system.main.chr(8233), '\u2029'), system.main.chr(133), '\u0085') ELSE body::VARCHAR END, '}', system.main.chr(10))
      END AS line
    FROM requests
  ),
  hashed AS (
    -- The id last: whoever names ids can look up two long ones with which MD5 begins alike.
    SELECT *, system.main.md5_number(system.main.concat(request, custom_id)) AS hash FROM lines
  ),
  summary AS (
    SELECT
      system.main.count(*) AS rows,
      -- histogram(problem) would let DuckDB 2 go over all rows once more.
      system.main.list_aggregate(system.main.list(problem) FILTER (WHERE problem IS NOT NULL), 'histogram') AS problems,
      -- Without the CASE, the text would be made of every row.
      system.main.min(CASE WHEN problem IS NOT NULL THEN system.main.concat(problem, ': ', custom_id) END, 5)
        FILTER (WHERE problem IS NOT NULL AND custom_id IS NOT NULL) AS examples,
      -- The sum of both halves is the same whatever the order of the rows and of the threads.
      system.main.concat(
        system.main.sum(system.main.">>"(hash, 64)::UBIGINT), '-', system.main.sum(system.main."&"(hash, 18446744073709551615::UHUGEINT)::UBIGINT)
      ) AS fingerprint,
      system.main.sum(system.main.mistral_internal_spool(token, custom_id, system.main.hash(custom_id), request, line)) AS spooled
    FROM hashed, mistral_830f78e090fe8aec00891405dfc14824_spool
  ),
  outcome AS (
    SELECT system.main.mistral_internal_submit(mistral_830f78e090fe8aec00891405dfc14824_spool.token, system.main.struct_pack(
      rows := rows, custom_ids := NULL, repeats := NULL, problems := problems, examples := examples,
      fingerprint := fingerprint
    )) AS answer
    FROM mistral_830f78e090fe8aec00891405dfc14824_spool LEFT JOIN summary ON true
    WHERE spooled IS NULL OR spooled = 0
  )
SELECT system.main.unnest(CASE WHEN system.main.struct_extract(answer, 'error') IS NULL
  THEN system.main.struct_extract(answer, 'rows') ELSE system.main.error(system.main.struct_extract(answer, 'error'))
END, recursive := true)
FROM outcome

