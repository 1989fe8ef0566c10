"""The files that a submission's reuse leaves: rows that were answered before, and which rows share a request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from duckdb_mistral.errors import LedgerError, StoreError
from duckdb_mistral.results.provenance import is_of, said_by

if TYPE_CHECKING:
    from pathlib import Path

    from duckdb_mistral.jobs.tags import Tags
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


def put_reused(home: Home, submission_id: str, reused: Reused) -> None:
    """Put what a submission does not send into the store, if there is one; raises StoreError."""
    for path, count in ((home.found(submission_id), reused.found), (home.copies(submission_id), reused.copies)):
        if home.store is not None and count:
            home.store.put(path)


def bring_reused(home: Home, submission_id: str, told: Tags) -> None:
    """Bring what a submission does not send from the store, as far as its jobs tell of it and it is not here."""
    for path, count in ((home.found(submission_id), told.answered), (home.copies(submission_id), told.copies)):
        if count and not path.exists():
            _bring(home, path, submission_id, count)


def kept_copies(home: Home, submission_id: str, told: int = 0) -> Path | None:
    """Return the file that `home.copies` names, None if there is none; the store has it if its rows are `told`.

    Raises LedgerError if it is another submission's: rows would get answers to what they did not ask; and StoreError if
    the store has lost it: rows would be left out.
    """
    path = home.copies(submission_id)
    if not path.exists() and not (told and _bring(home, path, submission_id, told)):
        if told and home.store is not None:
            raise StoreError(
                f"Which rows of submission {submission_id} share a request is neither in {path} nor in the store "
                f"{home.store}, so its results cannot be read. Put the file back, or correct the setting store."
            )
        return None
    if said_by(path) is not None and not is_of(path, submission=submission_id):
        raise LedgerError(
            f"The file {path} says which rows share a request, but is not that of submission {submission_id}. Put the "
            "right file back, or submit the same rows with force := true: what is still kept is not sent again."
        )
    return path


def _bring(home: Home, path: Path, submission_id: str, count: int) -> bool:
    """Bring a file of so many rows of a submission from the store; False where that does not have it whole."""

    def is_whole(brought: Path) -> bool:
        found = said_by(brought)
        return found is not None and found[1] == count and is_of(brought, submission=submission_id)

    return home.store is not None and home.store.get(path, is_whole)
