"""A process of its own for every contender and for the server, with its time and its peak memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.request import urlopen

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
#: A contender that is not done by then hangs.
CONTENDER_SECONDS = 3600


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What one contender needed: seconds by step, and the memory that it added to what its imports take."""

    seconds: dict[str, float]
    processor_seconds: float
    peak_bytes: int
    added_bytes: int
    figures: dict[str, Any]

    @property
    def total(self) -> float:
        """The seconds of all steps."""
        return sum(self.seconds.values())


class Failed(Exception):
    """A contender ended with an error; what it said is in the message."""


def run_contender(name: str, arguments: dict[str, Any]) -> Measured:
    """Run a contender of `benchmarks.contenders` once, in a process of its own."""
    os.sync()  # what others wrote is written, so that none pays for another one
    command = [sys.executable, "-m", "benchmarks.contenders", name, json.dumps(arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=CONTENDER_SECONDS, check=False)
    if done.returncode:
        raise Failed(f"{name}: {done.stderr.strip()[-2000:]}")
    return Measured(**json.loads(done.stdout.splitlines()[-1]))


def take_turns(contenders: dict[str, dict[str, Any]], *, repeats: int) -> dict[str, Measured]:
    """Run every contender `repeats` times, one after another in turn, and return each one's quickest run.

    The peak is the highest of its runs.
    """
    runs: dict[str, list[Measured]] = {name: [] for name in contenders}
    for _ in range(repeats):
        for name, arguments in contenders.items():
            runs[name].append(run_contender(name, arguments))
    return {
        name: Measured(
            seconds=quickest.seconds,
            processor_seconds=min(run.processor_seconds for run in its_runs),
            peak_bytes=max(run.peak_bytes for run in its_runs),
            added_bytes=max(run.added_bytes for run in its_runs),
            figures=quickest.figures,
        )
        for name, its_runs in runs.items()
        for quickest in [min(its_runs, key=lambda run: run.total)]
    }


@contextmanager
def server(directory: Path, *, job_seconds: float = 0.0, max_pending_requests: int = 100_000_000) -> Iterator[str]:
    """Run the local batch server in a process of its own; yield its address."""
    command = [sys.executable, "-m", "duckdb_mistral.emulator", "--dir", str(directory)]
    command += ["--job-seconds", str(job_seconds), "--max-pending-requests", str(max_pending_requests)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def witness(url: str) -> dict[str, Any]:
    """Return what the server counted."""
    with urlopen(f"{url}/_emulator/witness") as answer:  # noqa: S310  the address of our own server
        counts: dict[str, Any] = json.load(answer)
    return counts
