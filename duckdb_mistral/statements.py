"""The statements that a call of submit, preview or results stands for, written while the caller's is bound."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import cache
from typing import TYPE_CHECKING

import duckdb
from sqlglot import exp

from duckdb_mistral.errors import ArgumentError
from duckdb_mistral.output_types import declared
from duckdb_mistral.requests import RequestColumns
from duckdb_mistral.results import COLUMNS, literal
from duckdb_mistral.templates import template

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from duckdb_mistral.arguments import SubmitArguments

#: The columns of mistral_batch_preview and their types.
PREVIEW_COLUMNS = {"custom_id": "VARCHAR", "body": "JSON"}


def request_statement(name: str, arguments: SubmitArguments) -> str:
    """Return the statement of the template `name` ('submit' or 'preview') for one source."""
    requests = RequestColumns(
        arguments.endpoint,
        system=arguments.system,
        params=arguments.params,
        declared=arguments.output is not None,
    )
    return template(name).substitute(
        source=source_sql(arguments.source),
        plan=literal(json.dumps(asdict(arguments.plan))),
        known_columns=requests.known_columns,
        problem=requests.problem,
        body=requests.body,
    )


def results_statement(files: Sequence[Path], output: str | None = None) -> str:
    """Return the scan of results that are kept in `files`; `output` is their declared output, where they share one."""
    kind = "JSON" if output is None else declared(output).sql_type
    if not files:
        return f"SELECT {_typed_nulls(COLUMNS | {'output': kind})} WHERE false"
    typed = {"output": f'TRY_CAST("output" AS {kind}) AS "output"'}
    columns = ", ".join(typed.get(name, exp.column(name, quoted=True).sql("duckdb")) for name in COLUMNS)
    return template("results").substitute(columns=columns, files=", ".join(literal(path) for path in files))


def refusal(columns: Mapping[str, str], message: str) -> str:
    """Return a statement with `columns` that ends with `message` as soon as it runs."""
    return template("refusal").substitute(columns=_typed_nulls(columns), message=literal(message))


def source_sql(source: str) -> str:
    """Return `source`, the name of anything that FROM accepts or the text of one SELECT, to stand in brackets.

    The text is the caller's own and goes in as it is; DuckDB's parser decides what it is, so nothing can
    follow it. Raises ArgumentError where it is neither.
    """
    text = source.strip().rstrip(";").rstrip()
    for query in (text, f"FROM {text}", f"FROM {exp.to_identifier(text, quoted=True).sql('duckdb')}"):
        if _is_select(query):
            return f"(\n{query}\n)"
    raise ArgumentError(
        f"source must be the name of a table or view, or the text of one SELECT, but is {_shortened(source)!r}. "
        "Nothing was sent."
    )


def _is_select(query: str) -> bool:
    """Tell whether a text is one SELECT, and stays one in brackets (a comment at its end could swallow them)."""
    try:
        for text in (query, f"(\n{query}\n)"):
            statements = _parser().extract_statements(text)
            if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
                return False
    except duckdb.Error:
        return False
    return True


@cache
def _parser() -> duckdb.DuckDBPyConnection:
    """Return a connection of our own to parse with: the caller's is busy with the caller's statement."""
    return duckdb.connect(":memory:")


def _typed_nulls(columns: Mapping[str, str]) -> str:
    return ", ".join(
        f"NULL::{kind} AS {exp.to_identifier(name, quoted=True).sql('duckdb')}" for name, kind in columns.items()
    )


def _shortened(text: str, most: int = 120) -> str:
    return text if len(text) <= most else text[:most] + "…"
