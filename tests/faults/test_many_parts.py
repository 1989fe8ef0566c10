"""Several parts uploaded at once: one fails, the process is killed or interrupted in their middle; all ends well."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import duckdb
import pytest
from faults.harness import QUICK, UPLOAD, Story, check_invariants
from faults.test_every_step import KILLED, STORY
from support import clean_environment, environment_of, run_forked

from duckdb_mistral.emulator import Emulator
from duckdb_mistral.runtime.failpoints import VARIABLE

if TYPE_CHECKING:
    from pathlib import Path

#: Ten rows in parts of two.
PARTS = 5
LIMITS = {"max_requests_per_job": 2}
#: Before it, the steps are those of a single part; many of those after it are alike.
FIRST_STEP = 12
MORE_STEPS = 9

FAILURES: dict[str, tuple[dict[str, Any], str]] = {
    "413": ({"status": 413}, "HTTP 413"),
    "500": ({"status": 500}, "HTTP 500"),
    "the connection ends": ({"close": True}, "gave no answer"),
    "stored, then the connection ends": ({"close": True, "after": True}, "gave no answer"),
    "stored, then 502": ({"status": 502, "after": True}, "HTTP 502"),
    "no id in the answer": ({"change": {"id": None}}, "names no file"),
}


def environment(emulator: Emulator, home: Path) -> dict[str, str]:
    """Return the environment of a process that runs the story in parts."""
    settings = QUICK | LIMITS
    named = {f"DUCKDB_MISTRAL_{name.upper()}": str(value) for name, value in settings.items()}
    return environment_of(emulator, home) | named


def settle(emulator: Emulator) -> None:
    """Wait until the server has done with what a dead process had sent."""
    before, now = None, emulator.witness()
    while now != before:
        time.sleep(0.3)
        before, now = now, emulator.witness()


def end_well(emulator: Emulator, home: Path, said: str = "") -> None:
    """Go on with the same statements, and check that each part was uploaded once and created once."""
    story = Story(emulator, home, settings=LIMITS, said=[said])
    assert {row["outcome"] for row in story.go_on()} == {"ok"}
    check_invariants(story, jobs=PARTS)
    witness = emulator.witness()
    assert (witness["uploads_stored"], witness["creates_received"]) == (PARTS, PARTS)
    story.close()


@pytest.mark.fault("F20")
@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("skip", [0, 3])
def test_one_of_several_uploads_fails(failure: str, skip: int, emulator: Emulator, home: Path) -> None:
    """The upload's failure is told, nothing is created, and what was uploaded is not uploaded again."""
    rule, words = FAILURES[failure]
    emulator.faults(UPLOAD | rule | {"skip": skip})
    story = Story(emulator, home, settings=LIMITS)
    with pytest.raises(duckdb.Error, match=words):
        story.submit()
    assert emulator.witness()["creates_received"] == 0
    story.close()
    emulator.faults()
    end_well(emulator, home, *story.said)


@pytest.mark.newest
@pytest.mark.fault("F01", "F03")
@pytest.mark.parametrize("number", [1, 3, PARTS])
@pytest.mark.parametrize("name", ["before-upload", "after-upload", "after-create"])
def test_killed_among_several_uploads(name: str, number: int, emulator: Emulator, home: Path) -> None:
    """A process that is killed at its Nth upload is continued: each part is uploaded once and created once."""
    child = run_forked(STORY, environment(emulator, home) | {VARIABLE: f"{name}:{number}"})
    assert child.returncode == KILLED, child.stderr
    settle(emulator)
    end_well(emulator, home, child.stderr)


@pytest.mark.newest
@pytest.mark.fault("F28")
@pytest.mark.parametrize("name", ["before-download", "before-keep", "after-keep"])
@pytest.mark.parametrize("number", [1, 2, PARTS])
def test_killed_among_several_downloads(name: str, number: int, emulator: Emulator, home: Path) -> None:
    """A process that is killed while results are fetched leaves none of them half kept, and no scratch for good."""
    child = run_forked(STORY, environment(emulator, home) | {VARIABLE: f"{name}:{number}"})
    assert child.returncode == KILLED, child.stderr
    end_well(emulator, home, child.stderr)


@pytest.mark.newest
@pytest.mark.fault("F01", "F02", "F03")
def test_killed_at_every_step_of_many_parts(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """A process that sends many parts and is killed at its Nth step is continued by the next one."""
    number = FIRST_STEP
    while True:
        home = tmp_path / f"home-{number}"
        with Emulator(tmp_path / f"server-{number}") as emulator:
            child = run_forked(STORY, environment(emulator, home) | {VARIABLE: f"*:{number}"})
            assert child.returncode in (0, KILLED), child.stderr
            settle(emulator)
            end_well(emulator, home, child.stderr)
        if child.returncode == 0:
            break
        number += request.config.getoption("--every") * MORE_STEPS
    assert number > 40


@pytest.mark.fault("F39")
def test_interrupted_among_several_uploads(emulator: Emulator, home: Path) -> None:
    """Ctrl-C while the server keeps silent on several uploads ends the statement at once, and the next one goes on."""
    emulator.faults(UPLOAD | {"delay": 12, "after": True, "times": 2})
    child = subprocess.Popen(
        [sys.executable, "-c", STORY],
        env=clean_environment() | environment(emulator, home) | {"DUCKDB_MISTRAL_DEADLINE_SECONDS": "20"},
        stderr=subprocess.PIPE,
        text=True,
    )
    until = time.monotonic() + 60
    while emulator.witness()["requests"].get("upload", 0) < PARTS and time.monotonic() < until:
        time.sleep(0.05)
    child.send_signal(signal.SIGINT)
    _, said = child.communicate(timeout=6)
    assert child.returncode != 0
    assert "interrupt" in said.lower()
    emulator.faults()
    settle(emulator)
    end_well(emulator, home, said)
