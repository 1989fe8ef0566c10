"""The local batch server as a process of its own."""

from __future__ import annotations

import argparse

from duckdb_mistral.emulator import Emulator


def main() -> None:
    """Serve until told to stop."""
    parser = argparse.ArgumentParser(prog="python -m duckdb_mistral.emulator", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="the port to listen on; a free one by default")
    parser.add_argument("--dir", default=None, help="where files and jobs are kept; a temporary one by default")
    parser.add_argument("--job-seconds", type=float, default=0.0, help="how long each job is told as going on")
    parser.add_argument("--max-pending-requests", type=int, default=1_000_000, help="the workspace's limit")
    given = parser.parse_args()
    Emulator(
        given.dir,
        port=given.port,
        job_seconds=given.job_seconds,
        max_pending_requests=given.max_pending_requests,
    ).run()


if __name__ == "__main__":
    main()
