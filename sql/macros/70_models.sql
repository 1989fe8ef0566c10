CREATE OR REPLACE TEMP MACRO mistral_models() AS TABLE
$answered_rows
FROM (SELECT mistral_internal_models(true) AS answer)
WHERE system.main.now() IS NOT NULL;
COMMENT ON MACRO TABLE mistral_models IS 'The models that the API key may use. One row per model.';
