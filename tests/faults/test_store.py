"""A process with a store is killed at every step, and another machine goes on, which has its ledger alone."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
from faults.harness import QUICK, Story, check_invariants
from faults.test_every_step import KILLED, STORY, STRIDES
from support import environment_of, run_forked

from duckdb_mistral.emulator import Emulator
from duckdb_mistral.runtime.failpoints import VARIABLE

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.newest
@pytest.mark.fault("F01", "F02", "F03", "F28")
@pytest.mark.parametrize("stride", STRIDES)
def test_killed_at_every_step(stride: int, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """A process that is killed at its Nth step is continued by another home with its ledger and store, for every N."""
    every: int = request.config.getoption("--every")
    number = (stride + 1 - len(STRIDES)) * every
    while True:
        number += len(STRIDES) * every
        home, store = tmp_path / f"home-{number}", tmp_path / f"store-{number}"
        store.mkdir()
        settings = QUICK | {"store": f"file://{store}", "max_requests_per_job": 4}
        with Emulator(tmp_path / f"server-{number}") as emulator:
            environment = environment_of(emulator, home) | {VARIABLE: f"*:{number}"}
            environment |= {f"DUCKDB_MISTRAL_{name.upper()}": str(value) for name, value in settings.items()}
            child = run_forked(STORY, environment)
            assert child.returncode in (0, KILLED), child.stderr
            other = tmp_path / f"other-{number}"
            other.mkdir(mode=0o700)
            for path in home.glob("ledger.sqlite*"):
                shutil.copy(path, other)
            story = Story(emulator, other, settings=settings)
            assert {row["outcome"] for row in story.go_on()} == {"ok"}
            check_invariants(story, jobs=3)
            assert emulator.witness()["rows_accepted"] == 10
            story.close()
        if child.returncode == 0:
            break
    assert number > 20
