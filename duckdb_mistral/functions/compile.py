"""While a statement is bound: the statement that a call of submit, preview, estimate or results stands for.

Heavy modules are imported when a statement first needs them, so that registering costs next to nothing.
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from duckdb_mistral.errors import ArgumentError, MistralBatchError
from duckdb_mistral.functions.calls import NULL_ID

if TYPE_CHECKING:
    from collections.abc import Mapping

    from duckdb_mistral.functions.session import Session

#: While a macro is made, DuckDB 1.5 binds its body with names that begin so in the place of its parameters.
MACRO_PARAMETER = "0_macro_parameters"
#: What mistral_batch_results has in place of an id where none is given, which is not the same as NULL.
EVERY = "every ended submission"


def compile_call(session: Session, name: str, arguments: str) -> str:
    """Return the statement that a call of submit, preview or results stands for."""
    from duckdb_mistral.functions import row_types, statements
    from duckdb_mistral.results.columns import COLUMNS
    from duckdb_mistral.runtime import interrupts

    interrupts.listen()
    interrupts.begin()
    given = json.loads(arguments)
    columns = {
        "submit": row_types.columns(row_types.SUBMIT),
        "preview": statements.PREVIEW_COLUMNS,
        "estimate": row_types.columns(row_types.ESTIMATE),
        "results": COLUMNS,
    }[name]
    if str(given.get("source")).startswith(MACRO_PARAMETER):
        return statements.refusal(columns, "A macro that is being made has no source yet.")
    try:
        if name == "results":
            return _results(session, given)
        return _requests(session, name, given)
    except MistralBatchError as error:
        if name == "results":  # a relation or a view of what has not ended must fit what there will be
            columns = columns | {"output": _output_type(session, given["id"])}
        return statements.refusal(columns, str(error))
    except KeyboardInterrupt:
        return statements.refusal(columns, interrupts.INTERRUPTED)


def _requests(session: Session, name: str, given: Mapping[str, Any]) -> str:
    from duckdb_mistral.functions import arguments, statements
    from duckdb_mistral.functions.reach import look_sql
    from duckdb_mistral.results.output import UnknownTypeError

    if given.get("compared"):
        raise ArgumentError(arguments.COMPARED)
    try:
        checked = arguments.submit_arguments(given, session.settings.model)
    except UnknownTypeError as error:
        return statements.with_type_of_caller(name, given, error)
    unsent = None
    if name == "estimate" and checked.plan.reuse_requests:
        from duckdb_mistral.batches.reuse import unsent_sql

        unsent = unsent_sql(session.context(), checked.plan)
    look = look_sql(session.settings.home, given.get("allowed")) if name == "submit" else ""
    return statements.request_statement(name, checked, unsent, look)


def _results(session: Session, given: Mapping[str, Any]) -> str:
    from duckdb_mistral.batches.collect import collect
    from duckdb_mistral.functions.arguments import COMPARED, boolean
    from duckdb_mistral.functions.reach import refuse_out_of_reach
    from duckdb_mistral.functions.statements import results_statement

    if given["compared"] or given["partial"] is None:
        raise ArgumentError(COMPARED)
    identifier, partial = given["id"], boolean("partial", given["partial"])
    if identifier is None:
        raise ArgumentError(f"{NULL_ID} Without an id, the results of every ended submission are read.")
    if not isinstance(identifier, str):
        raise ArgumentError(f"id must be a submission or job id as text, but is {identifier!r}.")
    context = session.context()
    refuse_out_of_reach(context.home.path, given.get("allowed"))
    collected = collect(context, None if identifier == EVERY else identifier, partial=partial)
    return results_statement(collected.families, collected.output)


def _output_type(session: Session, identifier: Any) -> str:
    """Return the type of the column output of an id's results, as far as it is known here."""
    from duckdb_mistral.batches.lookup import declared_output
    from duckdb_mistral.results.output import declared

    output = None
    if isinstance(identifier, str):
        with suppress(MistralBatchError):
            output = declared_output(session.context(), identifier)
    return "JSON" if output is None else declared(output).sql_type
