-- Two models over the same rows: one upload, one job per model, and a self-join to compare them.

CREATE OR REPLACE TEMP TABLE reviews AS
FROM (VALUES
  (1, 'The pump came in two days and runs without a sound.'),
  (2, 'Third replacement in a month. I want my money back.'),
  (3, 'It does what it says; the manual is only in German.')
) AS review(custom_id, prompt);

CREATE OR REPLACE TEMP TABLE comparison AS
FROM mistral_batch_submit(
  'reviews',
  model := ['mistral-small-latest', 'ministral-8b-latest'],
  system := 'Judge this review of a product.',
  output := 'STRUCT(sentiment ENUM(''good'', ''mixed'', ''bad''), reasons VARCHAR[])',
  params := {temperature: 0}
);

SET VARIABLE comparison = (SELECT any_value(submission_id) FROM comparison);

FROM mistral_batch_wait(getvariable('comparison'));

CREATE OR REPLACE TEMP TABLE judged AS
FROM mistral_batch_results(getvariable('comparison'));

SELECT
  custom_id,
  small.output.sentiment AS small_sentiment,
  tiny.output.sentiment AS tiny_sentiment,
  small.output.sentiment IS NOT DISTINCT FROM tiny.output.sentiment AS agree,
  small.total_tokens AS small_tokens,
  tiny.total_tokens AS tiny_tokens
FROM judged AS small
JOIN judged AS tiny USING (custom_id)
WHERE small.model = 'mistral-small-latest' AND tiny.model = 'ministral-8b-latest'
ORDER BY custom_id;
