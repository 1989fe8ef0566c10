"""The demo: the main job on real text, against a local server that lives as long as the demo."""

from __future__ import annotations

import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click
import duckdb

from duckdb_mistral.cli.tables import print_table
from duckdb_mistral.errors import MistralBatchError
from duckdb_mistral.functions.register import connect
from duckdb_mistral.runtime.interrupts import INTERRUPTED

if TYPE_CHECKING:
    from collections.abc import Iterator

_PACKAGE = Path(__file__).resolve().parents[1]

PROMPTS = """\
CREATE TABLE staging AS
SELECT id AS custom_id, opening AS prompt FROM addresses;"""
SUBMIT = """\
FROM mistral_batch_submit('staging', system := 'Summarise in one sentence.');"""
STATUS = """\
SELECT job_id, status, total_requests, progress FROM mistral_batch_status();"""
WAIT = """\
SELECT job_id, status, succeeded_requests FROM mistral_batch_wait('%s');"""
#: The columns of submit's rows that are printed.
SUBMITTED = "submission_id, job_id, part, status, model, total_requests, reused"
RESULTS = """\
SELECT a.year, a.president, r.outcome, r.content
FROM addresses a JOIN mistral_batch_results('%s') r ON r.custom_id = a.id::VARCHAR
ORDER BY a.year;"""


def data_file() -> Path:
    """Return the demo's data file: inside an installed package, or under examples/ in a checkout."""
    inside = _PACKAGE / "data" / "addresses.csv"
    return inside if inside.exists() else _PACKAGE.parent / "examples" / "data" / "addresses.csv"


def run(*, rows: int, job_seconds: float) -> None:
    """Show every statement and what it prints; raises MistralBatchError if the extra is missing, and on Ctrl-C."""
    try:
        from duckdb_mistral.emulator import Emulator
    except ImportError as error:
        raise MistralBatchError(str(error)) from error
    with (
        _interrupts_told(),
        tempfile.TemporaryDirectory(prefix="duckdb-mistral-demo-") as home,
        Emulator(job_seconds=job_seconds) as server,
    ):
        click.echo(
            f"A local batch server is at {server.url}; it answers with an echo. Nothing leaves this machine.", err=True
        )
        connection = connect(settings={"api_key": "demo", "server_url": server.url, "home": home, "poll_seconds": 0.2})
        with connection:
            connection.execute(
                "CREATE TABLE addresses AS FROM read_csv($file) ORDER BY id LIMIT $rows",
                {"file": str(data_file()), "rows": rows},
            )
            _say(f"\n{PROMPTS}")
            connection.execute(PROMPTS)
            _say(f"\n{SUBMIT}")
            connection.execute(f"CREATE TEMP TABLE submitted AS {SUBMIT}")
            _print_jobs(connection.sql(f"SELECT {SUBMITTED} FROM submitted"))
            submission_id = connection.execute("SELECT submission_id FROM submitted").fetchall()[0][0]
            for statement in (STATUS, WAIT % submission_id):
                _say(f"\n{statement}")
                _print_jobs(connection.sql(statement))
            _say(f"\n{RESULTS % submission_id}")
            _print(connection.sql(RESULTS % submission_id))
    _say(
        "\nThat is all. With your own key (export MISTRAL_API_KEY=…) the same statements, without the local server, "
        "get Mistral's answers at the batch price."
    )


@contextmanager
def _interrupts_told() -> Iterator[None]:
    """Describe Ctrl-C as it works in the demo: a statement's own message speaks of jobs that go on at the API."""
    try:
        yield
    except (KeyboardInterrupt, duckdb.Error) as error:
        if isinstance(error, duckdb.Error) and INTERRUPTED not in str(error):
            raise
        raise MistralBatchError(
            "Interrupted. The demo has ended, and its local server and its job with it; nothing was sent elsewhere."
        ) from None


def _say(text: str) -> None:
    click.echo(text, err=True)
    sys.stderr.flush()


def _print_jobs(relation: duckdb.DuckDBPyRelation) -> None:
    """Print rows with their ids whole; DuckDB's own box cuts them on a narrow terminal."""
    print_table(relation)
    sys.stdout.flush()


def _print(relation: object) -> None:
    click.echo(str(relation).rstrip())
    sys.stdout.flush()
