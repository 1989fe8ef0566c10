"""The local batch server as a separate process."""

from __future__ import annotations

import argparse
import os

from duckdb_mistral.emulator import Emulator, Upstream


def main() -> None:
    """Serve until told to stop."""
    parser = argparse.ArgumentParser(prog="python -m duckdb_mistral.emulator", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="the port to listen on; a free one by default")
    parser.add_argument("--dir", default=None, help="where files and jobs are kept; a temporary one by default")
    parser.add_argument("--job-seconds", type=float, default=0.0, help="how long the echo's jobs appear to run")
    parser.add_argument("--max-pending-requests", type=int, default=1_000_000, help="the workspace's limit")
    parser.add_argument(
        "--upstream",
        metavar="URL",
        action="append",
        help="an OpenAI-compatible server that answers instead of the echo; several share the requests; "
        "their key, if they need one, is in the environment variable EMULATOR_UPSTREAM_KEY",
    )
    parser.add_argument("--concurrency", type=int, default=16, help="how many requests each upstream gets at once")
    given = parser.parse_args()
    upstream = None
    if given.upstream is not None:
        key = os.environ.get("EMULATOR_UPSTREAM_KEY") or None
        try:
            upstream = Upstream(urls=tuple(given.upstream), concurrency=given.concurrency, key=key)
        except ValueError as error:
            parser.error(str(error))
    Emulator(
        given.dir,
        port=given.port,
        job_seconds=0.0 if upstream else given.job_seconds,
        upstream=upstream,
        max_pending_requests=given.max_pending_requests,
    ).run()


if __name__ == "__main__":
    main()
