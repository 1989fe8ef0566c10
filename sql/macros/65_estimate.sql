CREATE OR REPLACE TEMP MACRO mistral_batch_estimate(
  $submit_parameters,
  pilot := NULL
) AS TABLE
FROM query(mistral_internal_compile('estimate', CASE
  $submit_compared
  ELSE to_json(struct_pack(
    $submit_arguments,
    pilot := pilot
  ))::VARCHAR
END))
WHERE system.main.now() IS NOT NULL;
COMMENT ON MACRO TABLE mistral_batch_estimate IS
'What mistral_batch_submit would send for the same arguments, and the most that it can cost in US dollars at batch price. One row; no network and no key, unless pilot := 20 asks the ordinary endpoint that many times.';
