"""Whether a process that may not use all memory has enough of it left to work in."""

from __future__ import annotations

from pathlib import Path

from duckdb_mistral.errors import SettingError

#: With less, Arrow cannot start the threads that it then waits for without end.
LEAST_BYTES = 160 << 20


def check_room() -> None:
    """Make sure that this process may still take LEAST_BYTES of addresses; raises SettingError.

    Only what a limit of the process itself (`ulimit -v`) leaves is looked at, and only where the system tells of it.
    """
    try:
        import resource

        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        used = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    except (ImportError, OSError, ValueError):
        return
    if limit != resource.RLIM_INFINITY and limit - used < LEAST_BYTES:
        left, enough = max(limit - used, 0) >> 20, (used + LEAST_BYTES >> 20) + 1
        raise SettingError(
            f"This process may use {limit >> 20:,} MB of memory (ulimit -v), of which {left:,} MB are left: too little "
            f"to work in, so nothing was sent. Allow it {enough:,} MB at least."
        )
