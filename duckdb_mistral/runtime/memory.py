"""Whether a process with limited memory has enough of it left to work in."""

from __future__ import annotations

from pathlib import Path

from duckdb_mistral.errors import SettingError

#: With less, Arrow cannot start its threads, and then waits for them forever.
LEAST_BYTES = 160 << 20


def check_room() -> None:
    """Raise SettingError unless this process may still take LEAST_BYTES of address space.

    Only the process's own limit (`ulimit -v`) is checked, and only if the system reports it.
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
