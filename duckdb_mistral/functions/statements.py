"""The statements that a call of submit, preview or results stands for, written while the caller's is bound."""

from __future__ import annotations

import json
import re
from functools import cache
from hashlib import md5
from typing import TYPE_CHECKING, Any

import duckdb

from duckdb_mistral.duck.qualifying import JSON, qualified
from duckdb_mistral.duck.quoting import identifier, literal
from duckdb_mistral.duck.sql_files import template
from duckdb_mistral.errors import ArgumentError
from duckdb_mistral.pricing.measures import fields, measures, measures_sql
from duckdb_mistral.requests.columns import RequestColumns
from duckdb_mistral.requests.line import request_line
from duckdb_mistral.results.columns import COLUMNS
from duckdb_mistral.results.generations import union_of
from duckdb_mistral.results.output import declared
from duckdb_mistral.runtime.forks import leave_to_parent

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from duckdb_mistral.batches.collect import Family
    from duckdb_mistral.functions.arguments import SubmitArguments
    from duckdb_mistral.results.output import UnknownTypeError

#: Of a UNION, DuckDB prepares all that is done to the rows once for each branch; with more than these, they are held.
MOST_BRANCHES = 20
_TWO_WORDS = re.compile(r"[^\s'\"();,.]+\s+[^\s'\"();,.]+")
#: The columns of mistral_batch_preview and their types.
PREVIEW_COLUMNS = {"custom_id": "VARCHAR", "body": "JSON"}


def request_statement(name: str, arguments: SubmitArguments, unsent: str | None = None, look: str = "") -> str:
    """Return the statement of the template `name` ('submit', 'preview' or 'estimate') for one source.

    `unsent` is the condition of the requests that would be sent, where an estimate is not of all; `look` is a join by
    which a submit finds out that the connection reaches no files. Raises ArgumentError for a source that is none, or
    that DuckDB would not take here.
    """
    _refuse_recursion(name, arguments.source)
    requests = RequestColumns(
        arguments.endpoint,
        system=arguments.system,
        params=arguments.params,
        declared=arguments.output is not None,
    )
    return template(name).substitute(
        _measures(arguments.endpoint.path) if name == "estimate" else {},
        pilot=_pilot(arguments.pilot),
        reached=look,
        only_unsent="" if unsent is None else f"QUALIFY {unsent}",
        source=source_sql(arguments.source),
        own=_own_names(arguments.source),
        kept="MATERIALIZED" if len(re.findall(r"\bUNION\b", arguments.source, re.IGNORECASE)) > MOST_BRANCHES else "",
        plan=literal(arguments.plan.to_json()),
        known_columns=requests.known_columns,
        taken=qualified(requests.taken("source_rows")),
        problem=qualified(requests.problem),
        body=qualified(requests.body),
        line=qualified(request_line()),
    )


def _refuse_recursion(name: str, source: str) -> None:
    """Refuse a source that calls the function that it is the source of, where DuckDB takes that for a recursion."""
    called = rf"\bmistral_batch_{name}\"?\s*\("
    if not duckdb.__version__.startswith("1.") and re.search(called, source, re.IGNORECASE):
        raise ArgumentError(
            f"The source calls mistral_batch_{name} itself, which DuckDB {duckdb.__version__} takes for "
            f"endless recursion. Make a table of the inner call (CREATE TEMP TABLE inner_rows AS FROM "
            f"mistral_batch_{name}(…)), and give its name. Nothing was sent."
        )


def _pilot(count: int | None) -> str:
    """Return the bodies that a pilot sends, as a column of an estimate.

    Without a pilot that is no LIMIT 0: where filter_pushdown is among disabled_optimizers, DuckDB 1.5 crashes on that.
    """
    if count is None:
        return "NULL::VARCHAR[] AS bodies"
    return qualified(f"list(body::VARCHAR) AS bodies FROM (SELECT body FROM sent ORDER BY md5(body) LIMIT {count})")


def _own_names(source: str) -> str:
    """Return how the tables begin that the text of a source could see: no table that it means is called so."""
    return f"mistral_{md5(source.encode(errors='replace'), usedforsecurity=False).hexdigest()}_"


def _measures(endpoint: str) -> dict[str, str]:
    """Return the pieces of an estimate that measure its requests."""
    return {
        "fields": fields(),
        "measures": measures_sql(endpoint),
        "measured": ", ".join(f"{name} := {name}" for name in measures(endpoint)),
    }


def with_type_of_caller(name: str, given: Mapping[str, Any], error: UnknownTypeError) -> str:
    """Return the statement that calls `name` again, with what the caller's connection makes of a declared output.

    The types that the caller has created are there alone; `typeof` tells what is in them. Where the connection does not
    know the type either, its own error says so. Raises `error` if that was tried already.
    """
    if given.get("typed"):
        raise error
    rest = json.dumps({key: value for key, value in given.items() if key != "output"} | {"typed": True})
    begin = f'{rest[:-1]}, "output": '
    before = (
        f"FROM query(mistral_internal_compile({literal(name)}, concat({literal(begin)}, to_json(typeof(CAST(NULL AS "
    )
    return f"{qualified(before)}{error.text}\n))), '}}')))"


def results_statement(families: Sequence[Family], output: str | None = None) -> str:
    """Return the scan of kept results: plain files as one scan, then each family that has retries.

    Rows with retries are of the submission that was first: an id's rows are those WHERE submission_id is that id.

    `output` is their declared output, where they share one.
    """
    kind = JSON if output is None else declared(output).sql_type
    typed = {"output": f'TRY_CAST("output" AS {kind}) AS "output"'}
    simple = [family for family in families if len(family.generations) == 1 and family.copies is None]
    plain = [path for family in simple for path in family.generations[0]]
    selects = [union_of([plain], _columns(typed))] if plain else []
    selects += [_family_scan(family, typed) for family in families if family not in simple]
    nothing = (
        f"SELECT {_typed_nulls({name: qualified(of) for name, of in COLUMNS.items()} | {'output': kind})} WHERE false"
    )
    return " UNION ALL ".join(f"({select})" for select in selects) or nothing


def _family_scan(family: Family, typed: Mapping[str, str]) -> str:
    """Return the scan of results that have retries, or rows that share a request."""
    if len(family.generations) > 1:
        typed = {**typed, "submission_id": f'{literal(family.submission_id)}::VARCHAR AS "submission_id"'}
    if family.copies is None:
        return union_of(family.generations, _columns(typed))
    return template("copied_results").substitute(
        results=union_of(family.generations, _columns({})), columns=_columns(typed), copies=literal(family.copies)
    )


def _columns(typed: Mapping[str, str]) -> str:
    """Return the columns of results to select: each as it is kept, or by the SQL that `typed` has for it."""
    return ", ".join(typed.get(name, identifier(name)) for name in COLUMNS)


def refusal(columns: Mapping[str, str], message: str) -> str:
    """Return a statement with `columns` that ends with `message` as soon as it runs."""
    words = message.replace("\x00", " ")  # DuckDB 1.5 ends a statement at a NUL
    typed = ", ".join(f"{identifier(name)} := NULL::{qualified(kind)}" for name, kind in columns.items())
    return template("refusal").substitute(columns=typed, message=literal(words))


def source_sql(source: str) -> str:
    """Return `source`, the name of anything that FROM accepts or the text of one SELECT, to stand in brackets.

    The text is the caller's own and goes in as it is; DuckDB's parser decides what it is, so nothing can
    follow it. Raises ArgumentError if it is neither.
    """
    text = source.strip()
    if _TWO_WORDS.fullmatch(text) and _statements(text) is None:
        raise ArgumentError(
            f"source is {literal(text)}: two words are a table and another name for it, or one name with a space, "
            f"which needs double quotes, as in {literal(identifier(text))}. Nothing was sent."
        )
    for body in (text, *_without_end(text)):
        for query in (body, *_as_name(body)):
            if _is_select(query):
                return f"(\n{query}\n)"
    if re.search(r"\bPIVOT\b", text, re.IGNORECASE) and _statements(text):
        raise ArgumentError(
            "source has a PIVOT whose columns DuckDB finds by running it first, so it cannot be part of another "
            "statement. Name the columns (PIVOT t ON name IN ('prompt', 'system') …), or make a table of it (CREATE "
            "TEMP TABLE pivoted AS PIVOT …) and give its name. Nothing was sent."
        )
    raise ArgumentError(
        f"source must be the name of a table or view, or the text of one SELECT, but is {_shortened(source)!r}"
        f"{_complaint(text)}. Nothing was sent."
    )


def _without_end(text: str) -> Iterator[str]:
    """Yield `text` without a semicolon that nothing but comments follow."""
    for position, character in enumerate(text):
        if character == ";" and _statements(text[position:]) == []:
            yield text[:position].rstrip()


def _as_name(text: str) -> list[str]:
    """Return the queries of a text as what FROM accepts; my-table needs quotes and may come without."""
    if not any(character.isspace() or character in "'\"();" for character in text):
        return [f"FROM {text}", f"FROM {identifier(text)}"]
    # EXPLAIN SELECT 1 is not a table named explain.
    return [] if _statements(text) else [f"FROM {text}"]


def _is_select(query: str) -> bool:
    """Tell whether a text is one SELECT, and stays one in brackets (a comment at its end could swallow them)."""
    return all(_statements(text) == [duckdb.StatementType.SELECT] for text in (query, f"(\n{query}\n)"))


def _statements(text: str) -> list[duckdb.StatementType] | None:
    """Return the kinds of the statements that a text holds, or None where DuckDB cannot parse it."""
    try:
        return [statement.type for statement in _parser().extract_statements(text)]
    except duckdb.Error:
        return None


def _complaint(text: str) -> str:
    """Return what keeps a text from being one SELECT, to follow the text."""
    try:
        statements = _parser().extract_statements(text)
    except duckdb.Error as error:
        return f" ({str(error).splitlines()[0]})"
    if len(statements) > 1:
        return f" (these are {len(statements)} statements)"
    return f" (this is a statement of the kind {statements[0].type.name})" if statements else ""


@cache
def _parser() -> duckdb.DuckDBPyConnection:
    """Return a connection of our own to parse with: the caller's is busy with the caller's statement."""
    parser = duckdb.connect(":memory:")
    leave_to_parent(parser)
    return parser


def _typed_nulls(columns: Mapping[str, str]) -> str:
    return ", ".join(f"NULL::{kind} AS {identifier(name)}" for name, kind in columns.items())


def _shortened(text: str, most: int = 120) -> str:
    return text if len(text) <= most else text[:most] + "…"
