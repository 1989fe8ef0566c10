"""DuckDB clients of several kinds, each of which runs statements and tells every answer as text."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import duckdb
from support import clean_environment

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

COMMAND = (sys.executable, "-m", "duckdb_mistral")
#: Statements of which DuckDB's clients tell different things: a count, or nothing.
SILENT = (
    "CREATE",
    "DESCRIBE",
    "INSERT",
    "UPDATE",
    "DELETE",
    "COPY",
    "EXPLAIN",
    "EXPORT",
    "SET",
    "PREPARE",
    "BEGIN",
    "DROP",
)
#: Where the state of a run lies, and its server.
_OWN = re.compile(r"/\S+/home\b|http://127\.0\.0\.1:\d+")


class Answer(NamedTuple):
    """The rows of a statement as text, or the sentence of its error."""

    rows: list[list[str]]
    error: str | None


def told(statement: str, rows: Iterable[Sequence[Any]], error: str | None) -> Answer:
    """Return an answer in the form in which those of all clients are the same."""
    if error is not None:
        lines = [line for line in error.strip().splitlines() if line.strip()]
        return Answer([], _OWN.sub("…", lines[0].partition("Error: ")[2] or lines[0]))
    if statement.startswith(SILENT):
        return Answer([], None)
    return Answer([[_text(value) for value in row] for row in rows], None)


def _text(value: Any) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, list):
        return f"[{', '.join(map(_text, value))}]"
    # Clients write true and 1.0 in ways of their own.
    return re.sub(r"^(\d+)\.0$", r"\1", str(value).lower() if isinstance(value, bool) else str(value))


def with_connection(con: duckdb.DuckDBPyConnection, statements: Iterable[str]) -> list[Answer]:
    """Run statements over a connection of this process."""
    answers = []
    for statement in statements:
        try:
            answers.append(told(statement, con.execute(statement).fetchall(), None))
        except duckdb.Error as error:
            answers.append(told(statement, [], str(error)))
    return answers


def with_shell(
    statements: Sequence[str], environment: dict[str, str], directory: Path, *arguments: str
) -> list[Answer]:
    """Run statements in the official shell that `duckdb-mistral shell` opens, over its standard input."""
    # The marks between the answers: on standard output as they are, on standard error as commands that are none.
    script = [".mode csv", ".headers off", ".nullvalue NULL"]
    for number, statement in enumerate(statements):
        script += [f".print @{number}", f".mark{number}", f"{statement};"]
    ran = subprocess.run(
        [*COMMAND, "shell", *arguments],
        env=clean_environment() | environment,
        cwd=directory,
        input="\n".join([*script, ""]),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode in (0, 1), ran.stderr
    out = _pieces(ran.stdout, [f"@{number}\n" for number in range(len(statements))])
    err = _pieces(ran.stderr, [f"Unrecognized command 'mark{number}'" for number in range(len(statements))])
    return [
        told(statement, csv.reader(io.StringIO(rows)), _error(said))
        for statement, rows, said in zip(statements, out, err, strict=True)
    ]


def _pieces(text: str, marks: Sequence[str]) -> list[str]:
    """Cut what was printed at the marks before the statements."""
    pieces = []
    for mark, following in zip(marks, [*marks[1:], "\0"], strict=True):
        _, found, text = text.partition(mark)
        assert found, f"{mark} was not printed"
        pieces.append(text.partition(following)[0])
    return pieces


def _error(said: str) -> str | None:
    """Return the line of standard error that tells why a statement failed; others are about the marks, or progress."""
    lines = [line for line in said.splitlines() if re.match(r"\w+( \w+)* Error: ", line)]
    lines = [line for line in lines if not line.startswith("Unknown Command")]
    return lines[0] if lines else None


NODE = """
const { DuckDBInstance } = require('@duckdb/node-api');
const text = value => value === null ? 'NULL'
  : value && value.items ? `[${value.items.map(text).join(', ')}]` : String(value);
(async () => {
  const { setup, statements } = JSON.parse(require('fs').readFileSync(0, 'utf8'));
  const instance = await DuckDBInstance.create(':memory:', { allow_unsigned_extensions: 'true' });
  const con = await instance.connect();
  await con.run(setup);
  const answers = [];
  for (const statement of statements) {
    try {
      const reader = await con.runAndReadAll(statement);
      answers.push([reader.getRows().map(row => row.map(text)), null]);
    } catch (error) { answers.push([[], error.message]); }
  }
  con.closeSync();
  console.log(JSON.stringify(answers));
})();
"""


def node_modules() -> Path | None:
    """Return where DuckDB's client for Node is installed; None where it, or Node, is not."""
    folder = Path(os.environ.get("NODE_PATH") or Path(sys.prefix) / "node" / "node_modules")
    return folder if shutil.which("node") and (folder / "@duckdb" / "node-api").is_dir() else None


def with_node(
    statements: Sequence[str], setup: str, environment: dict[str, str], directory: Path, modules: Path
) -> list[Answer]:
    """Run statements in Node; `setup` is what `duckdb-mistral extension --sql` prints."""
    ran = subprocess.run(
        ["node", "-e", NODE],
        env=clean_environment() | environment | {"NODE_PATH": str(modules)},
        cwd=directory,
        input=json.dumps({"setup": setup, "statements": statements}),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    answers = json.loads(ran.stdout)
    return [told(statement, rows, error) for statement, (rows, error) in zip(statements, answers, strict=True)]
