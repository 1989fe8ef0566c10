"""The state directory: made for its owner alone, and used only where nobody else could have changed what is in it."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

from duckdb_mistral.errors import LedgerError

if TYPE_CHECKING:
    from pathlib import Path

OWN = "Make it yours alone, or set DUCKDB_MISTRAL_HOME to a directory of your own."


def open_home(home: Path) -> bool:
    """Make the state directory if there is none; return whether it can be written.

    One that cannot be written can still be read: kept results are there for whoever may see them. Raises LedgerError
    if it is not a directory, cannot be made, or others could change what this process pays by.
    """
    try:
        _make(home)
        found = home.stat()
    except OSError as error:
        raise unwritable(home, str(error.strerror)) from error
    if not stat.S_ISDIR(found.st_mode):
        raise unwritable(home, "it is not a directory")
    if not os.access(home, os.R_OK | os.X_OK):
        raise unwritable(home, "this user may not even read it")
    if not os.access(home, os.W_OK):
        return False
    if hasattr(os, "geteuid"):
        _check_owner(home, found)
    return True


def unwritable(home: Path, reason: str) -> LedgerError:
    """Return the error that tells why nothing can be written under `home`."""
    return LedgerError(
        f"The state directory {home} cannot be written ({reason}), so nothing was sent. "
        "Make it writable, or set DUCKDB_MISTRAL_HOME to another directory."
    )


def read_only(home: Path) -> LedgerError:
    """Return the error for a `home` that can be read but not written."""
    return LedgerError(
        f"The state directory {home} is read-only for this user. Results that are kept there can be read, but "
        "nothing else can be done, and nothing was sent. Make it writable, or set DUCKDB_MISTRAL_HOME to another "
        "directory."
    )


def _make(home: Path) -> None:
    """Make a directory and those above it that are missing, each for its owner alone, whatever the umask."""
    missing = [path for path in (home, *home.parents) if not path.exists()]
    for path in reversed(missing):
        path.mkdir(mode=0o700, exist_ok=True)


def _check_owner(home: Path, found: os.stat_result) -> None:
    """Refuse a directory that belongs to another user than this one or root, or that everybody may write into."""
    if found.st_uid not in (os.geteuid(), 0):
        raise LedgerError(
            f"The state directory {home} belongs to {_name(found.st_uid)}, who could change what is paid and read "
            f"here, and nothing was sent. {OWN}"
        )
    if found.st_mode & stat.S_IWOTH:
        raise LedgerError(
            f"Everyone on this machine may write into the state directory {home}, and so change what is paid and read "
            f"here. Nothing was sent. Run chmod go-w on it if that was never meant; otherwise choose a directory in it."
        )


def _name(user_id: int) -> str:
    with suppress(ImportError, KeyError):
        import pwd

        return f"the user {pwd.getpwuid(user_id).pw_name}"
    return f"the user with id {user_id}"
