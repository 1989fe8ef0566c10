"""The functions that DuckDB calls: Arrow in, Arrow out, each one use case.

An error goes back as a value, and the statement raises it: so a person reads a sentence, and not Python's words
around it. Anything but a MistralBatchError is a bug, and goes through as it is.
"""

from __future__ import annotations

import inspect
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa

from duckdb_mistral.duck.arrow_function import create_arrow_function
from duckdb_mistral.duck.vectors import buffer, numbers
from duckdb_mistral.errors import MistralBatchError
from duckdb_mistral.functions import calls, row_types
from duckdb_mistral.functions.compile import compile_call
from duckdb_mistral.functions.vectors import array
from duckdb_mistral.runtime import interrupts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import duckdb
    import numpy as np

    from duckdb_mistral.functions.session import Session


def _zeros(count: int) -> pa.Array:
    """Return zeros as an Arrow array; made from numpy's, they would import pandas."""
    return pa.Array.from_buffers(pa.int8(), count, [None, buffer(bytes(count))])


#: A vector has 2,048 rows; this is what the spool answers for it, made once.
_ZEROS = _zeros(2048)

LISTEN = "mistral_internal_listen"

_OPENED = pa.struct([("token", pa.int64()), ("error", pa.string())])
#: Where `wait` is a number, the wait goes on, and is asked after by it.
_WAITED = pa.struct([("wait", pa.int64()), ("error", pa.string()), ("rows", pa.list_(row_types.STATUS))])
_SUMMARY = (
    "STRUCT(rows BIGINT, custom_ids BIGINT, repeats VARCHAR[], problems MAP(VARCHAR, UBIGINT), examples VARCHAR[], "
    "fingerprint VARCHAR)"
)
#: By the model that requests name themselves.
_MEASURED = (
    "STRUCT(model VARCHAR, requests BIGINT, input_bytes BIGINT, input_tokens BIGINT, max_output_tokens BIGINT, "
    "unlimited BIGINT, uncounted BIGINT, hidden BIGINT)[]"
)


class Function(NamedTuple):
    """A function that the SQL of this package calls; the same for all sessions."""

    name: str
    #: DuckDB's types of its parameters.
    parameters: list[str]
    #: What it returns; `row_types.sql_type` has DuckDB's word for it.
    kind: pa.DataType
    #: Takes a session and vectors, and returns a vector.
    vectors: Callable[..., pa.Array]
    #: Takes a session and the values of one row, and returns a value; None where rows are many.
    row: Callable[..., Any] | None = None
    #: Whether DuckDB may call it as often as it likes, and leave it out.
    pure: bool = False


class Functions:
    """The functions of one session, as DuckDB is given them."""

    def __init__(self, session: Session) -> None:
        """Serve `session`."""
        self.session = session
        #: DuckDB calls what it was given by its address, and the connection that gave it drops it when it is closed.
        self._given: tuple[_Vectors, ...] = ()

    def create(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Create every function on the database of `connection`.

        They have to be kept for as long as that database may call them: by whoever keeps this object.
        """
        functions = table()
        self._given = tuple(_Vectors(self.session, each.vectors, len(each.parameters)) for each in functions)
        for function, given in zip(functions, self._given, strict=True):
            returned = row_types.sql_type(function.kind)
            create_arrow_function(connection, function.name, given, function.parameters, returned, pure=function.pure)


class _Vectors:
    """One function of one session, with as many parameters as it has vectors; small, because it is never let go."""

    __slots__ = ("__signature__", "_form", "_session")

    def __init__(self, session: Session, form: Callable[..., pa.Array], count: int) -> None:
        """Call `form` with `session` and `count` vectors."""
        self.__signature__ = _signature(count)
        self._form = form
        self._session = session

    def __call__(self, *vectors: pa.Array) -> pa.Array:
        """Return the vector of answers."""
        return self._form(self._session, *vectors)


@cache
def _signature(count: int) -> inspect.Signature:
    kind = inspect.Parameter.POSITIONAL_ONLY
    return inspect.Signature([inspect.Parameter(f"vector_{number}", kind) for number in range(count)])


@cache
def table() -> tuple[Function, ...]:
    """Return every function that the macros and the statement templates call."""
    text, number, hashed = "VARCHAR", "BIGINT", "UBIGINT"
    line = Function("mistral_internal_line", [text, hashed, text], row_types.TEXT, _lines, pure=True)
    return (
        _text("compile", [text, text], compile_call),
        _few(
            "open",
            [text, "VARCHAR[]", hashed, hashed, "VARCHAR[]"],
            _OPENED,
            lambda *given: {"token": calls.open_spool(*given)},
        ),
        _text("check", [text, "VARCHAR[]"], calls.check),
        Function("mistral_internal_spool", [number, text, hashed, text, text], pa.int8(), _spool),
        _table("submit", [number, _SUMMARY], row_types.SUBMIT, calls.submit),
        Function("mistral_internal_tokens", [text, text], row_types.COUNT, _count_tokens),
        _table("estimate", [text, _SUMMARY, _MEASURED, "VARCHAR[]", "VARCHAR[]"], row_types.ESTIMATE, calls.estimate),
        _table("cost", [text], row_types.COST, calls.cost),
        _table("status", [text], row_types.STATUS, calls.status),
        _few("wait", [text, text, number], _WAITED, calls.wait),
        _table("cancel", [text], row_types.STATUS, calls.cancel),
        _table("retry", [text], row_types.SUBMIT, calls.retry),
        _table("jobs", [text, text, text, number], row_types.WORKSPACE, calls.workspace_jobs),
        _table("models", ["BOOLEAN"], row_types.MODELS, calls.models),
        _text("listen", ["BOOLEAN"], _listen)._replace(pure=True),
        line,
        # Last, because it tells that all are there.
        _text("session", ["BOOLEAN"], lambda session, _: session.name),
    )


def _spool(
    session: Session,
    tokens: pa.Array,
    custom_ids: pa.Array,
    id_hashes: pa.Array,
    requests: pa.Array,
    lines: pa.Array,
) -> pa.Array:
    """Write one vector of lines and their keys; the answer says nothing, but has to be as long."""
    try:
        _write(session, numbers(tokens), lines, custom_ids, requests, id_hashes)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("Interrupted while the rows were read. Nothing was sent.") from None
    return _ZEROS.slice(0, len(lines)) if len(lines) <= len(_ZEROS) else _zeros(len(lines))


def _write(session: Session, tokens: np.ndarray[Any, Any], *columns: pa.Array) -> None:
    if not len(tokens):
        return
    spool = session.spools.spool(int(tokens[0]))
    if (tokens != tokens[0]).any():
        calls.refuse_spools(session, set(tokens.tolist()))
    elif spool is not None:
        spool.write(*columns)


def _listen(_: Session, __: bool) -> None:
    """Be ready for Ctrl-C: a call with a constant is made while the statement is planned, on the caller's thread."""
    interrupts.listen()


def _lines(_: Session, files: pa.Array, hashes: pa.Array, custom_ids: pa.Array) -> pa.Array:
    """Return the result lines of rows, where the column response is asked for."""
    from duckdb_mistral.results.responses import find_lines

    return find_lines(files, hashes, custom_ids)


def _count_tokens(_: Session, texts: pa.Array, models: pa.Array) -> pa.Array:
    """Return numbers whose sum is, for each model, the tokens of its texts."""
    from duckdb_mistral.pricing.tokens import count_tokens

    return count_tokens(texts, models)


def _text(name: str, parameters: list[str], row: Callable[..., str | None]) -> Function:
    """Return a function that returns text; `row` takes a session and the values of one row."""
    return _of_rows(name, parameters, row_types.TEXT, row)


def _few(name: str, parameters: list[str], kind: pa.StructType, call: Callable[..., dict[str, Any]]) -> Function:
    """Return a function that returns a struct, with its errors in the struct's field error."""

    def row(session: Session, *values: Any) -> dict[str, Any]:
        interrupts.begin()
        try:
            return call(session, *values) | {"error": None}
        except MistralBatchError as error:
            return {"error": str(error)}
        except KeyboardInterrupt:
            return {"error": interrupts.INTERRUPTED}

    return _of_rows(name, parameters, kind, row)


def _table(
    name: str, parameters: list[str], row: pa.StructType, call: Callable[..., Iterable[dict[str, Any]] | pa.Array]
) -> Function:
    """Return a function that returns a struct with its rows, or with its error; very many rows come as one array."""
    kind = pa.struct([("error", pa.string()), ("rows", pa.list_(row))])

    def rows(*given: Any) -> dict[str, Any]:
        found = call(*given)
        return {"rows": found if isinstance(found, pa.Array) else list(found)}

    return _few(name, parameters, kind, rows)


def _of_rows(name: str, parameters: list[str], kind: pa.DataType, row: Callable[..., Any]) -> Function:
    """Return a function whose calls are the few of a statement, never requests or results."""

    def vectors(session: Session, *columns: pa.Array) -> pa.Array:
        values = zip(*(column.to_pylist() for column in columns), strict=True)
        return _vector([row(session, *given) for given in values], kind)

    return Function(f"mistral_internal_{name}", parameters, kind, vectors, row)


def _vector(answers: list[Any], kind: pa.DataType) -> pa.Array:
    """Return the vector of answers, of which some may hold their rows as an array."""
    if not any(isinstance(answer, dict) and isinstance(answer.get("rows"), pa.Array) for answer in answers):
        return array(answers, kind)
    row = kind.field("rows").type.value_type
    vectors = []
    for answer in answers:
        rows = answer.get("rows")
        rows = rows if rows is None or isinstance(rows, pa.Array) else array(rows, row)
        offsets = array([None if rows is None else 0, 0 if rows is None else len(rows)], pa.int32())
        lists = pa.ListArray.from_arrays(offsets, array([], row) if rows is None else rows)
        vectors.append(pa.StructArray.from_arrays([array([answer["error"]], pa.string()), lists], fields=list(kind)))
    return pa.concat_arrays(vectors)
