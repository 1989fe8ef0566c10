-- models/summaries.sql
SELECT tickets.id, answers.outcome, answers.content AS summary, answers.error
FROM {{ ref('tickets') }} AS tickets
JOIN ({{ duckdb_mistral.mistral_answers(ref('submitted')) }}) AS answers
  ON answers.custom_id = tickets.id::VARCHAR
