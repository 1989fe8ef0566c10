"""What is measured: `python -m benchmarks.contenders NAME ARGUMENTS` runs one contender and prints its figures.

Imports are made before the clock starts; they have a case of their own.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from benchmarks.building import build_copy, build_spool
from benchmarks.caps import caps_answer, caps_line
from benchmarks.first import first_by_hand, first_sdk, first_submit
from benchmarks.growing import memory, scale, status
from benchmarks.many_jobs import ledger_reports, sqlite_reports, sqlite_status, statements, status_many
from benchmarks.reading import read_by_hand, read_detected, read_everything, read_floor, read_joined, read_verified
from benchmarks.shell import python_statements, shell_statements
from benchmarks.team import team_ledger, team_wait
from benchmarks.whole import whole_by_hand, whole_client, whole_loop, whole_orjson

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.clock import Clock

CONTENDERS: dict[str, Callable[[Path, dict[str, Any]], Clock]] = {
    function.__name__: function
    for function in (
        build_copy,
        build_spool,
        read_floor,
        read_detected,
        read_verified,
        read_everything,
        read_by_hand,
        read_joined,
        whole_client,
        whole_by_hand,
        whole_orjson,
        whole_loop,
        status,
        memory,
        scale,
        first_sdk,
        first_by_hand,
        first_submit,
        ledger_reports,
        sqlite_reports,
        status_many,
        sqlite_status,
        statements,
        team_ledger,
        team_wait,
        caps_answer,
        caps_line,
        python_statements,
        shell_statements,
    )
}


def main() -> None:
    """Run the contender that the command line names."""
    name, given = sys.argv[1], json.loads(sys.argv[2])
    with TemporaryDirectory(dir=given["scratch"], prefix=f"{name}-") as work:
        print(CONTENDERS[name](Path(work), given).told())


if __name__ == "__main__":
    main()
