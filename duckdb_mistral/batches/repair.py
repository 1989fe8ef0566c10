"""Repairing: a damaged ledger is put aside, and another one built from the workspace's jobs."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from duckdb_mistral.api.listing import read
from duckdb_mistral.batches.restore import restore
from duckdb_mistral.batches.spools import forgive
from duckdb_mistral.runtime.failpoints import failpoint
from duckdb_mistral.state.ledger import Ledger
from duckdb_mistral.state.names import REPAIR_LOCK
from duckdb_mistral.state.sqlite import DamagedLedgerError

if TYPE_CHECKING:
    from pathlib import Path

    from duckdb_mistral.api.listing import Listing
    from duckdb_mistral.batches.context import Context
    from duckdb_mistral.state.home import Home


@dataclass(frozen=True, kw_only=True)
class Repair:
    """What a repair did."""

    #: Where the damaged ledger lies now, or None where it was sound.
    put_aside: Path | None
    restored_submissions: int
    restored_jobs: int
    #: Jobs that had not been sent, and whose requests wait here.
    unsent_jobs: int = 0


def repair(context: Context) -> Repair:
    """Put a damaged ledger aside, and restore what the workspace's jobs tell of submissions.

    What a sound ledger already knows stays as it is; a new one gets its name once it is whole. Raises an ApiError if
    the jobs cannot be listed; nothing is changed then.
    """
    home = context.home
    listed = read(context.client)
    with context.locks.waiting(REPAIR_LOCK):
        if context.settings.ledger is not None:  # a server looks after its own files
            return _repaired(context, listed)
        there = home.ledger
        sound = _sound(home) if there.exists() else None
        if sound is not None:
            return _repaired(context.over(sound), listed)
        damaged = there.exists()
        building = home.building
        # One process at a time is here, so what lies there is what a killed one has left.
        shutil.rmtree(building.path, ignore_errors=True)
        ledger = Ledger(building)
        done = _repaired(context.over(ledger), listed)
        ledger.settle()
        if there.exists() and not damaged:  # another process has made one meanwhile
            done, put_aside = _repaired(context.over(Ledger(home)), listed), None
        else:
            put_aside = _put_aside(home)
            failpoint("after-aside")
            ledger.path.replace(there)
        shutil.rmtree(building.path, ignore_errors=True)
        return replace(done, put_aside=put_aside)


def _repaired(context: Context, listed: Listing) -> Repair:
    """Restore all that the workspace tells of; what was recorded here and never created there may be forgotten."""
    done = restore(context, listed.reports.values())
    if listed.is_whole:
        client = context.client
        forgive(context.home, context.ledger, server_url=client.server_url, account=client.account)
    return Repair(
        put_aside=None,
        restored_submissions=done.submissions,
        restored_jobs=done.jobs,
        unsent_jobs=done.unsent_jobs,
    )


def _sound(home: Home) -> Ledger | None:
    """Return the ledger to continue with, None if it is damaged.

    One that is locked, or of a newer version, raises LedgerError.
    """
    try:
        return Ledger(home)
    except DamagedLedgerError:
        return None


def _put_aside(home: Home) -> Path | None:
    """Move what there is of a damaged ledger into a directory of its own: SQLite would take its log for a new one's."""
    directory, files = home.new_aside()
    found = [file for file in files if file.exists()]
    if not found:
        return None
    directory.mkdir(mode=0o700, exist_ok=True)
    for file in found:
        file.replace(files[file])
    return directory
