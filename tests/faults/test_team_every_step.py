"""A machine of a team dies at its Nth step, for N after N, and its disk with it; another machine goes on."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
from faults.harness import QUICK, Story, check_invariants
from faults.test_every_step import KILLED, STORY, STRIDES
from postgres import is_there, shared_server
from support import environment_of, run_forked

from duckdb_mistral.emulator import Emulator
from duckdb_mistral.runtime.failpoints import VARIABLE
from duckdb_mistral.state import leases

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(not is_there(), reason="no PostgreSQL is installed here")

#: How long a lock outlives its holder here.
LEASE = 1.0
BRIEF = f"from duckdb_mistral.state import leases\nleases.LEASE_SECONDS = {LEASE}\n"


@pytest.mark.newest
@pytest.mark.fault("F01", "F02", "F03", "F28")
@pytest.mark.parametrize("stride", STRIDES)
def test_machine_lost_at_every_step(
    stride: int, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that dies at its Nth step, with its disk, is continued by another one that has none of its files."""
    monkeypatch.setattr(leases, "LEASE_SECONDS", LEASE)
    every: int = request.config.getoption("--every") * 2 - 1  # each is two processes on two machines
    number = (stride + 1 - len(STRIDES)) * every
    while True:
        number += len(STRIDES) * every
        home, store = tmp_path / f"home-{number}", tmp_path / f"store-{number}"
        store.mkdir()
        settings = QUICK | {
            "store": f"file://{store}",
            "ledger": shared_server().new_url(),
            "max_requests_per_job": 6,
            "max_pending_requests": 6,  # so the second part is not uploaded before the first one has ended
        }
        with Emulator(tmp_path / f"server-{number}") as emulator:
            environment = environment_of(emulator, home) | {VARIABLE: f"*:{number}"}
            environment |= {f"DUCKDB_MISTRAL_{name.upper()}": str(value) for name, value in settings.items()}
            child = run_forked(BRIEF + STORY, environment)
            assert child.returncode in (0, KILLED), child.stderr
            shutil.rmtree(home, ignore_errors=True)
            story = Story(emulator, tmp_path / f"other-{number}", settings=settings, said=[child.stderr])
            assert {row["outcome"] for row in story.go_on()} == {"ok"}
            check_invariants(story, jobs=2)
            story.close()
        if child.returncode == 0:
            break
    assert number > 60
