-- A ledger of version 1 with one finished submission, as SQLite dumps it.
BEGIN TRANSACTION;
CREATE TABLE jobs (
	"key" INTEGER NOT NULL, 
	submission_id TEXT, 
	part INTEGER NOT NULL, 
	model TEXT NOT NULL, 
	endpoint TEXT NOT NULL, 
	server_url TEXT NOT NULL, 
	step TEXT NOT NULL, 
	request_count BIGINT NOT NULL, 
	input_bytes BIGINT NOT NULL, 
	created_here_at BIGINT NOT NULL, 
	sent_at BIGINT, 
	checked_at BIGINT, 
	message TEXT, 
	results TEXT, 
	job_id TEXT, 
	status TEXT, 
	report TEXT, 
	PRIMARY KEY ("key"), 
	FOREIGN KEY(submission_id) REFERENCES submissions (submission_id), 
	UNIQUE (job_id)
);
INSERT INTO "jobs" VALUES(1,'4172a146-453e-486f-b672-f15fefed6324',1,'mistral-small-latest','/v1/chat/completions','https://api.example.org','created',3,222,1795455449805839,1795455450161398,1795455450305873,NULL,NULL,'7acd09a1-396b-4ce9-a271-ef9cedd23f76','SUCCESS','{"job_id": "7acd09a1-396b-4ce9-a271-ef9cedd23f76", "status": "SUCCESS", "endpoint": "/v1/chat/completions", "model": "mistral-small-latest", "total_requests": 3, "completed_requests": 3, "succeeded_requests": 3, "failed_requests": 0, "created_at": 1795455450000000, "started_at": 1795455450000000, "completed_at": 1795455450000000, "errors": [], "metadata": [["duckdb_mistral_submission", "4172a146-453e-486f-b672-f15fefed6324"], ["duckdb_mistral_part", "1 mistral-small-latest"]], "input_files": ["1def03af-2bd1-4bb4-9c88-288ea55cbb38"], "output_file": "0965ab8a-2d69-498f-8898-9120a79fc690", "error_file": null}');
CREATE TABLE meta (
	name TEXT NOT NULL, 
	value TEXT NOT NULL, 
	PRIMARY KEY (name)
);
INSERT INTO "meta" VALUES('schema_version','1');
CREATE TABLE parts (
	submission_id TEXT NOT NULL, 
	part INTEGER NOT NULL, 
	request_count BIGINT NOT NULL, 
	input_bytes BIGINT NOT NULL, 
	file_id TEXT, 
	PRIMARY KEY (submission_id, part), 
	FOREIGN KEY(submission_id) REFERENCES submissions (submission_id)
);
INSERT INTO "parts" VALUES('4172a146-453e-486f-b672-f15fefed6324',1,3,222,'1def03af-2bd1-4bb4-9c88-288ea55cbb38');
CREATE TABLE submissions (
	submission_id TEXT NOT NULL, 
	identity TEXT NOT NULL, 
	live BOOLEAN NOT NULL, 
	server_url TEXT NOT NULL, 
	account TEXT NOT NULL, 
	endpoint TEXT NOT NULL, 
	models TEXT NOT NULL, 
	timeout_hours INTEGER NOT NULL, 
	metadata TEXT NOT NULL, 
	request_count BIGINT NOT NULL, 
	input_bytes BIGINT NOT NULL, 
	output TEXT, 
	retry_of TEXT, 
	created_at BIGINT NOT NULL, 
	PRIMARY KEY (submission_id)
);
INSERT INTO "submissions" VALUES('4172a146-453e-486f-b672-f15fefed6324','82bce999c412be7f8a1d3be7984e5ecc8daccfe9568fe8b4f0bb13af3cd9e234',1,'https://api.example.org','a28f0145dc55','/v1/chat/completions','["mistral-small-latest"]',24,'{}',3,222,NULL,NULL,1795455449805839);
CREATE UNIQUE INDEX submissions_live ON submissions (identity) WHERE live IS 1;
CREATE INDEX ix_jobs_submission_id ON jobs (submission_id);
COMMIT;
