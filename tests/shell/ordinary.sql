-- What any user of DuckDB types, a statement a line; every client has to answer it as Python does (test_ordinary.py).
-- No statement shows an id, a time or a path, so the answers are the same in each run.

-- Tables of prompts, and the whole way
CREATE TABLE tickets AS FROM (VALUES (1, 'It crashes.'), (2, 'Add dark mode.'), (3, 'It''s 50% "off" 🦆')) t(id, body);
CREATE TABLE staging AS SELECT id AS custom_id, 'Summarise: ' || body AS prompt FROM tickets;
SELECT total_requests, requests, jobs FROM (SELECT 3 AS total_requests) JOIN mistral_batch_estimate('staging') ON true;
SELECT custom_id, body->'messages'->0->>'content' FROM mistral_batch_preview('staging') ORDER BY custom_id;
EXPLAIN SELECT * FROM mistral_batch_submit('staging');
SELECT count(*) FROM mistral_batch_status();
DESCRIBE SELECT * FROM mistral_batch_submit('staging');
SELECT count(*) FROM mistral_batch_status();
SELECT part, model, endpoint, total_requests, reused FROM mistral_batch_submit('staging', model := 'mistral-small-latest');
SELECT total_requests, reused FROM mistral_batch_submit('staging', model := 'mistral-small-latest');
SET VARIABLE id = (SELECT submission_id FROM mistral_batch_status());
SELECT status, succeeded_requests, progress FROM mistral_batch_wait(getvariable('id'));
SELECT status, failed_requests, errors FROM mistral_batch_wait(getvariable('id'), timeout_seconds := 12.5);
SELECT t.id, r.outcome, r.content FROM tickets t JOIN mistral_batch_results(getvariable('id')) r ON r.custom_id = t.id::VARCHAR ORDER BY t.id;
SELECT custom_id, status_code, finish_reason, response->>'object', reused FROM mistral_batch_results() ORDER BY ALL;
SELECT status FROM mistral_batch_wait(getvariable('id'), timeout_seconds := 'infinity');
SELECT status FROM mistral_batch_wait(getvariable('id'), timeout_seconds := -1);

-- What becomes of results
CREATE TABLE answers AS SELECT t.*, r.content, r.total_tokens FROM tickets t JOIN mistral_batch_results() r ON r.custom_id = t.id::VARCHAR;
UPDATE answers SET content = upper(content) WHERE id = 1;
DELETE FROM answers WHERE id = 3;
INSERT INTO answers SELECT t.*, r.content, 0 FROM tickets t JOIN mistral_batch_results() r ON r.custom_id = t.id::VARCHAR WHERE t.id = 3;
ALTER TABLE answers ADD COLUMN seen BOOLEAN DEFAULT false;
ALTER TABLE answers RENAME COLUMN seen TO checked;
SELECT * FROM answers ORDER BY id;
CREATE UNIQUE INDEX answers_id ON answers(id);
INSERT OR REPLACE INTO answers BY NAME SELECT 1 AS id, 'again' AS content;
SELECT name FROM (SHOW TABLES) ORDER BY name;
SELECT column_name, column_type FROM (DESCRIBE answers);
CREATE TEMP VIEW answered AS SELECT custom_id, content FROM mistral_batch_results();
SELECT count(*), count(content) FROM answered;
SELECT outcome, count(*) FROM mistral_batch_results() GROUP BY ALL ORDER BY ALL;
SELECT custom_id, row_number() OVER (ORDER BY custom_id DESC) FROM mistral_batch_results() ORDER BY 1;
COPY (SELECT custom_id, content FROM mistral_batch_results()) TO 'answers.parquet';
SELECT * FROM 'answers.parquet' ORDER BY ALL;
COPY (SELECT custom_id, content FROM mistral_batch_results() ORDER BY ALL) TO 'answers.csv';
SELECT count(*) FROM read_csv('answers.csv');
COPY answers TO 'answers.jsonl' (FORMAT json);
EXPORT DATABASE 'backup' (FORMAT parquet);
SELECT count(*) FROM 'backup/answers.parquet';
SUMMARIZE SELECT outcome FROM mistral_batch_results();
PIVOT (SELECT custom_id, outcome FROM mistral_batch_results()) ON outcome USING count(*) GROUP BY custom_id ORDER BY custom_id;

-- Sources of every kind
CREATE TEMP TABLE mine AS SELECT 'a' AS custom_id, 'A temporary table' AS prompt, 5 AS max_tokens;
SELECT total_requests FROM mistral_batch_submit('mine', system := 'Be brief.', params := {temperature: 0.5, stop: ['a''b', NULL]});
WITH asked AS (SELECT 'b' AS custom_id, 'A CTE' AS prompt) SELECT total_requests FROM mistral_batch_submit('asked');
SELECT total_requests FROM mistral_batch_submit('SELECT ''c'' AS custom_id, ''The text of a SELECT'' AS prompt');
CREATE VIEW looked AS SELECT id AS custom_id, body AS prompt FROM tickets WHERE id < 3;
SELECT total_requests FROM mistral_batch_submit('looked');
CREATE SCHEMA apart;
CREATE TABLE apart."odd name" AS SELECT 1 AS custom_id, 'Quoted' AS prompt;
SELECT total_requests FROM mistral_batch_submit('apart."odd name"');
ATTACH ':memory:' AS other;
CREATE TABLE other.far AS SELECT 1 AS custom_id, 'Another database' AS prompt;
SELECT total_requests FROM mistral_batch_submit('other.far');
USE other;
SELECT body->'messages' FROM mistral_batch_preview('far');
USE memory;
DETACH other;
CREATE TYPE mood AS ENUM ('good', 'bad');
CREATE TABLE typed AS SELECT 'good'::mood AS custom_id, 'An enum' AS prompt, 0.25::DECIMAL(4, 2) AS temperature, DATE '2026-11-28' AS day;
SELECT custom_id, body FROM mistral_batch_preview('typed');
SELECT body FROM mistral_batch_preview('SELECT 1 AS custom_id, [{''role'': ''user'', ''content'': ''hi''}] AS messages');
SELECT body FROM mistral_batch_preview('SELECT 1 AS custom_id, ''x'' AS input', endpoint := '/v1/embeddings', model := 'mistral-embed');
SELECT total_requests FROM mistral_batch_submit('SELECT 1 AS custom_id, ''Judge'' AS prompt', output := 'STRUCT(mood VARCHAR, urgent BOOLEAN)');
SELECT count(*) FROM mistral_batch_wait((SELECT submission_id FROM mistral_batch_status() ORDER BY created_at DESC LIMIT 1));
CREATE MACRO asked(source) AS TABLE SELECT custom_id FROM mistral_batch_preview(source);
FROM asked('looked') ORDER BY ALL;
CREATE SEQUENCE numbers;
SELECT custom_id FROM mistral_batch_preview('SELECT nextval(''numbers'') AS custom_id, body AS prompt FROM tickets') ORDER BY ALL;

-- Transactions
BEGIN;
CREATE TABLE uncommitted AS SELECT 'u' AS custom_id, 'Not committed' AS prompt;
SELECT total_requests, reused FROM mistral_batch_submit('uncommitted');
ROLLBACK;
SELECT total_requests, reused FROM mistral_batch_submit('SELECT ''u'' AS custom_id, ''Not committed'' AS prompt');
BEGIN;
INSERT INTO tickets VALUES (4, 'In a transaction');
COMMIT;
SELECT count(*) FROM tickets;

-- Prepared statements, and ids that are expressions
PREPARE read AS SELECT count(*) FROM mistral_batch_results($1);
EXECUTE read(getvariable('id'));
PREPARE sent AS SELECT total_requests, reused FROM mistral_batch_submit($source, model := 'mistral-small-latest');
EXECUTE sent(source := 'staging');
DEALLOCATE sent;
PREPARE looked AS SELECT status FROM mistral_batch_status($1);
EXECUTE looked(getvariable('id'));
SELECT status, completed_requests FROM mistral_batch_status((SELECT getvariable('id')));
SELECT status FROM mistral_batch_cancel((SELECT getvariable('id')));
SELECT count(*) FROM mistral_batch_retry(getvariable('id'));
SELECT s.status FROM (SELECT getvariable('id') AS id) asked, LATERAL (SELECT status FROM mistral_batch_status(asked.id)) s;
SELECT count(*) FROM mistral_batch_results() WHERE submission_id = (SELECT getvariable('id'));
SELECT answers, prompt_tokens > 0, cost > 0, prices_date IS NOT NULL FROM mistral_batch_cost(getvariable('id'));
SELECT bool_and(status = 'SUCCESS'), bool_and(created_at <= now()), min(metadata['duckdb_mistral_part']) FROM mistral_batch_jobs(status := ['SUCCESS'], created_after := now() - INTERVAL 1 DAY);
SELECT id, capabilities, aliases FROM mistral_models() ORDER BY id;
SELECT typeof(created_at), typeof(errors), typeof(metadata), typeof(progress) FROM mistral_batch_status(getvariable('id'));
SELECT count(*) FROM duckdb_functions() WHERE function_name = 'mistral_batch_submit' AND comment LIKE 'Sends one request%';

-- Mistakes
FROM mistral_batch_submit('SELECT 1 AS custom_id');
FROM mistral_batch_submit('SELECT 1 AS prompt');
FROM mistral_batch_submit('SELECT 1 AS custom_id, ''x'' AS prompt, 5 AS max_token');
FROM mistral_batch_submit('SELECT NULL AS custom_id, ''x'' AS prompt');
FROM mistral_batch_submit('SELECT 1 AS custom_id, ''x'' AS prompt FROM range(2)');
FROM mistral_batch_submit('staging', reuse := 'never');
FROM mistral_batch_submit('staging', endpoint := '/v1/nothing');
FROM mistral_batch_submit('staging', params := {temperature: 'nan'::DOUBLE});
FROM mistral_batch_submit('staging', metadata := {a: repeat('x', 10000)});
FROM mistral_batch_submit('staging', max_cost := 0.0000001, force := true);
FROM mistral_batch_submit('DELETE FROM staging');
FROM mistral_batch_submit('');
FROM mistral_batch_results('nothing');
FROM mistral_batch_results(getvariable('id'), partial := 'false');
FROM mistral_batch_status('nothing');
FROM mistral_batch_wait(NULL);
FROM mistral_batch_cancel(NULL);
FROM mistral_batch_retry('3f2a9c1e-0000-4000-8000-000000000000');
FROM mistral_batch_jobs(status := 'NONE');
DROP TABLE answers;
CHECKPOINT;
