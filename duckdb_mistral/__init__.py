"""Mistral's Batch API as DuckDB table functions: a table of prompts in, a table of answers out, in plain SQL."""

from __future__ import annotations

from duckdb_mistral.errors import (
    ApiError,
    ArgumentError,
    AuthenticationError,
    BillingError,
    ForbiddenError,
    IncompleteResultsError,
    LedgerError,
    LimitError,
    MissingKeyError,
    MistralBatchError,
    NotEndedError,
    NotFoundError,
    NotSentError,
    OutcomeUnknownError,
    OversleptError,
    SettingError,
    SourceError,
    StoreError,
    UnknownJobError,
    UnreachableError,
    WaitTimeoutError,
)
from duckdb_mistral.functions.register import connect, register
from duckdb_mistral.settings import Settings

__all__ = [
    "ApiError",
    "ArgumentError",
    "AuthenticationError",
    "BillingError",
    "ForbiddenError",
    "IncompleteResultsError",
    "LedgerError",
    "LimitError",
    "MissingKeyError",
    "MistralBatchError",
    "NotEndedError",
    "NotFoundError",
    "NotSentError",
    "OutcomeUnknownError",
    "OversleptError",
    "SettingError",
    "Settings",
    "SourceError",
    "StoreError",
    "UnknownJobError",
    "UnreachableError",
    "WaitTimeoutError",
    "connect",
    "register",
]


def __getattr__(name: str) -> str:
    """Return `__version__`, read from the installed package when it is asked for."""
    if name == "__version__":
        from importlib.metadata import version

        return version("duckdb-mistral")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
