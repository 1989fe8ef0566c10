"""A marimo notebook: `marimo edit examples/marimo_notebook.py`, or as a script `python examples/marimo_notebook.py`.

It needs MISTRAL_API_KEY, or the local server of `duckdb-mistral emulator` and the two variables that it prints.
"""

import marimo

app = marimo.App()


@app.cell
def _():
    from pathlib import Path

    import duckdb
    import marimo as mo

    import duckdb_mistral

    duckdb_mistral.register()
    data = Path(__file__).parent / "data" / "addresses.csv"
    return data, duckdb, mo


@app.cell
def _(data, duckdb):
    duckdb.sql(f"CREATE OR REPLACE TABLE addresses AS FROM read_csv('{data}') LIMIT 20")
    addresses = duckdb.table("addresses")
    return (addresses,)


@app.cell
def _(addresses, duckdb):
    # A cell that runs again finds the existing job, which is paid for only once.
    staging = addresses.project("id AS custom_id, opening AS prompt").to_arrow_table()
    submission_id, jobs = duckdb.sql(
        "SELECT any_value(submission_id), count(*) FROM mistral_batch_submit('staging', system := 'One sentence.')"
    ).fetchall()[0]
    return jobs, staging, submission_id


@app.cell
def _(duckdb, jobs, mo, submission_id):
    status = duckdb.sql(f"SELECT status, succeeded_requests FROM mistral_batch_wait('{submission_id}')").fetchall()
    mo.md(f"{jobs} job, {status[0][1]} answers: {status[0][0]}")
    return (status,)


@app.cell
def _(addresses, duckdb, status, submission_id):
    assert status  # the answers are there once the jobs have ended
    answers = duckdb.sql(f"""
        SELECT a.year, a.president, r.outcome, r.content
        FROM addresses a JOIN mistral_batch_results('{submission_id}') r ON r.custom_id = a.id::VARCHAR
        ORDER BY a.year
    """).pl()
    answers  # noqa: B018  the last expression is what a cell shows
    return (answers,)


if __name__ == "__main__":
    app.run()
