"""The directories of spooled requests under `home`: whose they are, and whether the ledger remembers all of them.

A submission's directory is marked before anything of it is sent. If one is marked and the ledger does
not know it, the ledger is older: a restored backup. Then nothing is sent or removed until it is repaired.
"""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from typing import TYPE_CHECKING
from uuid import uuid4

from duckdb_mistral.errors import LedgerError
from duckdb_mistral.requests.spool import Spool
from duckdb_mistral.state.inventory import entries
from duckdb_mistral.state.names import mark_path, spool_lock, spool_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from duckdb_mistral.batches.context import Context
    from duckdb_mistral.jobs.job import Submission
    from duckdb_mistral.state.home import Home
    from duckdb_mistral.state.ledger import Ledger
    from duckdb_mistral.state.locks import Locks


def new_spool(context: Context) -> Spool:
    """Return an empty spool for the requests of a new submission; its directory has the submission's id.

    What submissions that were never recorded have left is removed. Raises LedgerError if the ledger is older
    than what lies beside it.
    """
    settings, ledger, home = context.settings, context.ledger, context.home
    check_memory(home, ledger)
    for path in abandoned_spools(home, ledger, context.locks):
        shutil.rmtree(path, ignore_errors=True)
    submission_id = str(uuid4())

    def recorded() -> bool:
        """Tell whether the ledger has parts of this spool: an interrupt may come between that and keeping it."""
        try:
            return bool(ledger.parts(submission_id))
        except LedgerError:
            return True  # it cannot be told now; the next spool removes what nobody owns

    return Spool(
        home.spool(submission_id),
        max_requests=min(settings.max_requests_per_job, settings.max_pending_requests),
        max_bytes=settings.max_bytes_per_file,
        release=context.locks.held(spool_lock(submission_id)),
        owned=recorded,
    )


def mark_recorded(home: Home, submission: Submission) -> None:
    """Mark the directory of a submission, if its requests are still here; the ledger knows it from before.

    The mark holds the server and the account that the submission is sent with.

    Raises LedgerError if that cannot be written.
    """
    directory = home.spool(submission.submission_id)
    mark = mark_path(directory)
    if not directory.exists() or mark.exists():
        return
    try:
        mark.touch(mode=0o600)
        mark.write_text(
            json.dumps({"server_url": submission.server_url, "account": submission.account}), encoding="utf-8"
        )
    except OSError as error:
        raise LedgerError(
            f"{directory} cannot be written ({error.strerror}), so nothing is sent. Free some space on its disk, or "
            "repair it, and run the statement again."
        ) from error


def unmark(directory: Path) -> None:
    """Take the mark off a directory, of whose submission nothing was sent and nothing will be."""
    mark_path(directory).unlink(missing_ok=True)


def leave(directory: Path) -> None:
    """Remove a directory whose last part has gone, with its mark."""
    with suppress(OSError):  # other parts are still there, or another process was quicker
        mark = mark_path(directory)
        if all(path == mark for path in directory.iterdir()):
            mark.unlink(missing_ok=True)
            directory.rmdir()


def unknown_spools(home: Home, ledger: Ledger) -> list[Path]:
    """Return what lies among the spools that is of no submission of the ledger."""
    paths = entries(home.spools)
    known = ledger.known([path.name for path in paths])
    return [path for path in paths if path.name not in known]


def forgotten_spools(home: Home, ledger: Ledger) -> list[Path]:
    """Return the directories of submissions that were recorded, and that the ledger does not know."""
    return [
        path
        for path in unknown_spools(home, ledger)
        # Recorded by another process meanwhile, which marks it after that.
        if mark_path(path).exists() and ledger.submission(path.name) is None and not ledger.was_forgotten(path.name)
    ]


def check_memory(home: Home, ledger: Ledger) -> None:
    """Raise LedgerError if the ledger is older than what lies beside it."""
    forgotten = forgotten_spools(home, ledger)
    if forgotten:
        others = f" and {len(forgotten) - 1} more" if len(forgotten) > 1 else ""
        if ledger.shared and home.ledger.exists():
            raise LedgerError(
                f"The ledger {ledger.place} does not know submission {min(forgotten).name}{others}, parts of which may "
                f"have been sent from {home}. Nothing is sent or removed until `duckdb-mistral move --to team` has "
                f"brought there what the ledger under {home} knows, or `duckdb-mistral doctor --repair`, run with the "
                "same key and server, what the workspace's jobs tell."
            )
        raise LedgerError(
            f"The ledger {ledger.place} is older than the requests beside it: it does not know submission "
            f"{min(forgotten).name}{others}, parts of which may have been sent. Was it restored from a backup? Nothing "
            "is sent or removed until `duckdb-mistral doctor --repair`, run with the same key and server, has "
            "restored what it lacks from the workspace's jobs."
        )


def abandoned_spools(home: Home, ledger: Ledger, locks: Locks) -> Iterator[Path]:
    """Yield what lies among the spools that no submission owns and no process is at, holding its lock meanwhile.

    What was recorded once is never among it, whatever the ledger knows, unless another home has forgotten it.
    """
    for path in unknown_spools(home, ledger):
        # A spool's lock is held from before it is made until it is recorded; what spills beside it is under it too.
        with locks.trying(spool_lock(spool_of(path))) as held:
            if not held or ledger.submission(path.name) is not None:
                continue
            if not mark_path(path).exists() or ledger.was_forgotten(path.name):
                yield path


def forgive(home: Home, ledger: Ledger, *, server_url: str, account: str) -> None:
    """Take the mark off directories of which this workspace has no job: nothing of them was created there."""
    for path in forgotten_spools(home, ledger):
        try:
            told = json.loads(mark_path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            told = {"server_url": server_url, "account": account}  # cut short before anything was sent
        if told == {"server_url": server_url, "account": account}:
            unmark(path)
