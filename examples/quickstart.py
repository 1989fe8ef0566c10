"""The main path in a script, on DuckDB's default connection.

    export MISTRAL_API_KEY=…
    python examples/quickstart.py

Without a key: run `duckdb-mistral emulator`, and set the two variables that it prints.
"""

from pathlib import Path

import duckdb

import duckdb_mistral

DATA = Path(__file__).parent / "data" / "addresses.csv"

duckdb_mistral.register()  # from here on, duckdb.sql has the functions

duckdb.sql(f"CREATE TABLE addresses AS FROM read_csv('{DATA}') LIMIT 20")
duckdb.sql("CREATE TABLE staging AS SELECT id AS custom_id, opening AS prompt FROM addresses")

submitted = duckdb.sql("FROM mistral_batch_submit('staging', system := 'Summarise in one sentence.')")
submission_id = submitted.fetchall()[0][0]

duckdb.sql("SELECT job_id, status, total_requests, progress FROM mistral_batch_status()").show()
duckdb.sql(f"SELECT job_id, status, succeeded_requests FROM mistral_batch_wait('{submission_id}')").show()

answers = duckdb.sql(f"""
    SELECT a.year, a.president, r.outcome, r.content
    FROM addresses a JOIN mistral_batch_results('{submission_id}') r ON r.custom_id = a.id::VARCHAR
    ORDER BY a.year
""")
answers.show()
