"""The files that a submission's reuse leaves: rows that were answered before, and which rows share a request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from duckdb_mistral.errors import LedgerError
from duckdb_mistral.results.provenance import is_of, said_by

if TYPE_CHECKING:
    from pathlib import Path

#: How the files begin that a submission's reuse leaves, after which comes its id.
FOUND, COPIES = "found-", "copies-"


@dataclass(frozen=True, kw_only=True)
class Reused:
    """What a submission does not send: rows answered before, kept as results; and copies of requests that are sent."""

    found: int
    copies: int
    #: The file, under `home`/results, of the rows answered before; None where there are none.
    results: Path | None


def forget(home: Path, submission_id: str) -> None:
    """Remove what a reuse kept for a submission that was not recorded in the end."""
    for path in (found_path(home, submission_id), copies_path(home, submission_id)):
        path.unlink(missing_ok=True)


def copies_path(home: Path, submission_id: str) -> Path:
    """Return the file that says which custom_ids of a submission share the request of another: (custom_id, sent_as)."""
    return home / "requests" / f"{COPIES}{submission_id}.parquet"


def kept_copies(home: Path, submission_id: str) -> Path | None:
    """Return the file that `copies_path` names, None where there is none.

    Raises LedgerError where it is another submission's: rows would get answers to what they did not ask.
    """
    path = copies_path(home, submission_id)
    if not path.exists():
        return None
    if said_by(path) is not None and not is_of(path, submission=submission_id):
        raise LedgerError(
            f"The file {path} says which rows share a request, but is not that of submission {submission_id}. Put the "
            "right file back, or submit the same rows with force := true: what is still kept is not sent again."
        )
    return path


def found_path(home: Path, submission_id: str) -> Path:
    """Return the file of the results that a submission found answered before."""
    return home / "results" / f"{FOUND}{submission_id}.parquet"
