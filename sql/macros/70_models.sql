CREATE OR REPLACE TEMP MACRO mistral_models() AS TABLE
SELECT unnest(CASE WHEN struct_extract(answer, 'error') IS NULL
  THEN struct_extract(answer, 'rows') ELSE error(struct_extract(answer, 'error'))
END, recursive := true)
FROM (SELECT mistral_internal_models(true) AS answer)
WHERE system.main.now() IS NOT NULL;
COMMENT ON MACRO TABLE mistral_models IS 'The models that the API key may use. One row per model.';
