"""The files that a submission's reuse leaves: rows that were answered before, and which rows share a request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from duckdb_mistral.errors import LedgerError
from duckdb_mistral.results.provenance import is_of, said_by

if TYPE_CHECKING:
    from pathlib import Path

    from duckdb_mistral.state.home import Home


@dataclass(frozen=True, kw_only=True)
class Reused:
    """What a submission does not send: rows answered before, kept as results; and copies of requests that are sent."""

    found: int
    copies: int
    #: The file, under `home`, of the rows answered before; None where there are none.
    results: Path | None


def forget(home: Home, submission_id: str) -> None:
    """Remove what a reuse kept for a submission that was not recorded in the end."""
    for path in (home.found(submission_id), home.copies(submission_id)):
        path.unlink(missing_ok=True)


def kept_copies(home: Home, submission_id: str) -> Path | None:
    """Return the file that `home.copies` names, None if there is none.

    Raises LedgerError if it is another submission's: rows would get answers to what they did not ask.
    """
    path = home.copies(submission_id)
    if not path.exists():
        return None
    if said_by(path) is not None and not is_of(path, submission=submission_id):
        raise LedgerError(
            f"The file {path} says which rows share a request, but is not that of submission {submission_id}. Put the "
            "right file back, or submit the same rows with force := true: what is still kept is not sent again."
        )
    return path
