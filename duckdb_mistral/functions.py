"""The functions that DuckDB calls: Arrow in, Arrow out, each one use case.

An error goes back as a value, and the statement raises it: so a person reads a sentence, and not Python's words
around it. What is no MistralBatchError is a bug, and goes through as it is.
"""

from __future__ import annotations

import inspect
from functools import cache
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from duckdb.func import FunctionNullHandling, PythonUDFType

from duckdb_mistral import interrupts, rows
from duckdb_mistral.errors import MistralBatchError
from duckdb_mistral.session import Session

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import duckdb
    import numpy as np


def _zeros(count: int) -> pa.Array:
    """Return zeros as an Arrow array; made from numpy's, they would import pandas."""
    return pa.Array.from_buffers(pa.int8(), count, [None, pa.py_buffer(bytes(count))])


#: A vector has 2,048 rows; this is what the spool answers for it, made once.
_ZEROS = _zeros(2048)

LISTEN = "mistral_internal_listen"
#: What DuckDB may call as often as it likes, and leave out.
PURE = (LISTEN, "mistral_internal_line")

_OPENED = pa.struct([("token", pa.int64()), ("error", pa.string())])
_SUMMARY = (
    "STRUCT(rows BIGINT, custom_ids BIGINT, problems MAP(VARCHAR, UBIGINT), examples VARCHAR[], fingerprint VARCHAR)"
)
#: By the model that requests name themselves.
_MEASURED = (
    "STRUCT(model VARCHAR, requests BIGINT, input_bytes BIGINT, input_tokens BIGINT, max_output_tokens BIGINT, "
    "unlimited BIGINT, uncounted BIGINT, hidden BIGINT)[]"
)


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
        forms = _forms()
        self._given = tuple(_Vectors(self.session, form, len(parameters)) for form, parameters, _ in forms.values())
        for (name, (_, parameters, returns)), given in zip(forms.items(), self._given, strict=True):
            connection.create_function(
                name,
                given,
                parameters,
                returns,
                type=PythonUDFType.ARROW,
                null_handling=FunctionNullHandling.SPECIAL,
                side_effects=name not in PURE,
            )


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
def _forms() -> dict[str, tuple[Callable[..., pa.Array], list[Any], str]]:
    """Return the functions by name, each with its parameters and what it returns: the same for all sessions."""
    text, number, hashed = "VARCHAR", "BIGINT", "UBIGINT"
    return {
        "mistral_internal_compile": (_texts(Session.compile), [text, text], text),
        "mistral_internal_open": (
            _answers(lambda *given: {"token": Session.open(*given)}, _OPENED),
            [text, "VARCHAR[]", hashed, hashed, "VARCHAR[]"],
            rows.sql_type(_OPENED),
        ),
        "mistral_internal_check": (_texts(Session.check), [text, "VARCHAR[]"], text),
        "mistral_internal_spool": (_spool, [number, text, hashed, text, text], "TINYINT"),
        "mistral_internal_submit": _table(Session.submit, [number, _SUMMARY], rows.SUBMIT),
        "mistral_internal_tokens": (_count_tokens, [text, text], "BIGINT"),
        "mistral_internal_estimate": _table(
            Session.estimate, [text, _SUMMARY, _MEASURED, "VARCHAR[]", "VARCHAR[]"], rows.ESTIMATE
        ),
        "mistral_internal_cost": _table(Session.cost, [text], rows.COST),
        "mistral_internal_status": _table(Session.status, [text], rows.STATUS),
        "mistral_internal_wait": _table(Session.wait, [text, "DOUBLE"], rows.STATUS),
        "mistral_internal_cancel": _table(Session.cancel, [text], rows.STATUS),
        "mistral_internal_retry": _table(Session.retry, [text], rows.SUBMIT),
        "mistral_internal_jobs": _table(Session.workspace_jobs, [text, text, text, number], rows.WORKSPACE),
        "mistral_internal_models": _table(Session.models, ["BOOLEAN"], rows.MODELS),
        LISTEN: (_texts(_listen), ["BOOLEAN"], text),
        "mistral_internal_line": (_lines, [text, hashed], text),
        # Last, because it tells that all are there.
        "mistral_internal_session": (_texts(lambda session, _: session.name), ["BOOLEAN"], text),
    }


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
        _write(session, tokens.to_numpy(), lines, custom_ids, requests, id_hashes)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("Interrupted while the rows were read. Nothing was sent.") from None
    return _ZEROS.slice(0, len(lines)) if len(lines) <= len(_ZEROS) else _zeros(len(lines))


def _write(session: Session, tokens: np.ndarray[Any, Any], *columns: pa.Array) -> None:
    if not len(tokens):
        return
    spool = session.spool(int(tokens[0]))
    if (tokens != tokens[0]).any():
        session.refuse_spools(set(tokens.tolist()))
    elif spool is not None:
        spool.write(*columns)


def _listen(_: Session, __: bool) -> None:
    """Be ready for Ctrl-C: a call with a constant is made while the statement is planned, on the caller's thread."""
    interrupts.listen()


def _lines(_: Session, files: pa.Array, hashes: pa.Array) -> pa.Array:
    """Return the result lines of rows, where the column response is asked for."""
    from duckdb_mistral.responses import find_lines

    return find_lines(files, hashes)


def _count_tokens(_: Session, texts: pa.Array, models: pa.Array) -> pa.Array:
    """Return numbers whose sum is, for each model, the tokens of its texts."""
    from duckdb_mistral.tokens import count_tokens

    return count_tokens(texts, models)


def _texts(call: Callable[..., str | None]) -> Callable[..., pa.Array]:
    """Return the vector form of a function that returns text."""

    def function(session: Session, *columns: pa.Array) -> pa.Array:
        return pa.array([call(session, *values) for values in _values(columns)], pa.string())

    return function


def _answers(call: Callable[..., dict[str, Any]], kind: pa.StructType) -> Callable[..., pa.Array]:
    """Return the vector form of a function that returns a struct, with its errors in the struct's field error."""

    def function(session: Session, *columns: pa.Array) -> pa.Array:
        found = []
        for values in _values(columns):
            interrupts.begin()
            try:
                found.append(call(session, *values) | {"error": None})
            except MistralBatchError as error:
                found.append({"error": str(error)})
            except KeyboardInterrupt:
                found.append({"error": interrupts.INTERRUPTED})
        return pa.array(found, kind)

    return function


def _table(
    call: Callable[..., Iterable[dict[str, Any]]], parameters: list[Any], row: pa.StructType
) -> tuple[Callable[..., pa.Array], list[Any], str]:
    """Return function, parameters and return type of a function that returns rows."""
    kind = pa.struct([("error", pa.string()), ("rows", pa.list_(row))])
    return _answers(lambda *values: {"rows": list(call(*values))}, kind), parameters, rows.sql_type(kind)


def _values(columns: Iterable[pa.Array]) -> Iterable[tuple[Any, ...]]:
    """Return the rows of a call; these are the few of a statement, never requests or results."""
    return zip(*(column.to_pylist() for column in columns), strict=True)
