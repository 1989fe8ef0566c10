"""Contenders: the same statements from Python and from the official duckdb shell, with the local server."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from benchmarks.clock import Clock
from benchmarks.loop import POLL_SECONDS
from benchmarks.memory import status_of
from benchmarks.shared import KEY, settings_of

if TYPE_CHECKING:
    from collections.abc import Iterator

#: What makes later statements the second ones in their process.
FIRST = (
    "FROM mistral_batch_submit('SELECT 1 AS custom_id, ''x'' AS prompt', metadata := {{'run': '{run}-first'}})",
    "SELECT count(*) FROM mistral_batch_wait((SELECT max(submission_id) FROM mistral_batch_status()))",
    "SELECT count(*) FROM mistral_batch_results()",
)
#: The statements whose times count, of which the second one waits.
TIMED = (
    "CREATE TEMP TABLE submitted AS FROM mistral_batch_submit('staging', metadata := {{'run': '{run}'}})",
    "CREATE TEMP TABLE waited AS FROM mistral_batch_wait((SELECT max(submission_id) FROM submitted))",
    "CREATE TEMP TABLE joined AS SELECT staging.*, content FROM staging JOIN mistral_batch_results() USING (custom_id)",
)
COUNTED = "SELECT count(content) AS joined FROM joined"
#: How often the memory of the shell and its helper is read; what counts is the peak that the system keeps.
LOOK_SECONDS = 0.02
TIME = re.compile(r"Run Time \(s\): real ([0-9.]+)")


def python_statements(work: Path, given: dict[str, Any]) -> Clock:
    """Run mistral_batch_submit and mistral_batch_results in a Python process; the create is in the time."""
    import duckdb_mistral

    run = uuid4()
    settings = settings_of(work, given) | {"server_url": given["url"], "poll_seconds": POLL_SECONDS}
    submit, wait, join = (statement.format(run=run) for statement in TIMED)
    with duckdb_mistral.connect(given["database"], settings=settings) as connection:
        for statement in FIRST:
            connection.execute(statement.format(run=run)).fetchall()
        clock = Clock()
        with clock.step("submit"):
            connection.execute(submit)
        connection.execute(wait)
        with clock.step("results"):
            connection.execute(join)
        assert connection.execute(COUNTED).fetchone() == (given["rows"],)
    return clock


def shell_statements(work: Path, given: dict[str, Any]) -> Clock:
    """Run the same statements in `duckdb-mistral shell`, by the shell's own timer."""
    run = uuid4()
    settings = settings_of(work, given) | {"server_url": given["url"], "poll_seconds": POLL_SECONDS}
    del settings["api_key"]
    environment = os.environ | {f"DUCKDB_MISTRAL_{name.upper()}": str(value) for name, value in settings.items()}
    environment |= {"MISTRAL_API_KEY": KEY, "MISTRAL_SERVER_URL": given["url"]}
    command = [sys.executable, "-m", "duckdb_mistral", "shell", given["database"], "-csv"]
    for statement in (*FIRST, ".timer on", *TIMED, ".timer off", COUNTED):
        command += ["-c", statement.format(run=run)]
    clock = Clock()
    with (
        subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as launcher,
        _peaks_of_children(launcher.pid) as peaks,
    ):
        said, _ = launcher.communicate()
    timed = [float(seconds) for seconds in TIME.findall(said)]
    if launcher.returncode or len(timed) != len(TIMED) or said.split()[-2:] != ["joined", str(given["rows"])]:
        raise RuntimeError(said)
    clock.seconds |= {"submit": timed[0], "results": timed[-1]}
    clock.figures |= {"shell": peaks["duckdb"], "helper": peaks["python"]}
    return clock


@contextmanager
def _peaks_of_children(pid: int) -> Iterator[dict[str, int]]:
    """Yield a dictionary of the peak memory in bytes of a process's children, by their programs' names."""
    peaks = {"duckdb": 0, "python": 0}
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(LOOK_SECONDS):
            for child in _children(pid):
                with suppress(OSError):  # it has ended
                    name = Path(f"/proc/{child}/exe").readlink().name
                    kind = "python" if name.startswith("python") else "duckdb"
                    peaks[kind] = max(peaks[kind], status_of(child, "VmHWM"))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peaks
    finally:
        ended.set()
        thread.join()


def _children(pid: int) -> list[str]:
    with suppress(OSError):
        return [
            child
            for task in Path(f"/proc/{pid}/task").iterdir()
            for child in (task / "children").read_text(encoding="ascii").split()
        ]
    return []
