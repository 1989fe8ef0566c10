"""Processes that are stopped between writing down a create and sending it, for longer than others look for it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from faults.harness import Story, check_invariants
from faults.test_every_step import STORY
from support import clean_environment, environment_of

from duckdb_mistral.runtime.failpoints import VARIABLE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from duckdb_mistral.emulator import Emulator

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="no process can be stopped here")

#: With these, a create leaves within two seconds, and others look for it for five.
BRIEF = {"deadline_seconds": 2, "reconcile_seconds": 5}


_started: list[subprocess.Popen[str]] = []


@pytest.fixture(autouse=True)
def _none_left() -> Iterator[None]:
    """Kill what a test that failed has left."""
    yield
    while _started:
        child = _started.pop()
        if child.poll() is None:
            child.kill()
            child.communicate()


def start(emulator: Emulator, home: Path, failpoint: str) -> subprocess.Popen[str]:
    """Start a process that submits, waits and reads, and that stops itself on the way; return once it has."""
    environment = clean_environment() | environment_of(emulator, home) | {VARIABLE: f"stop:{failpoint}"}
    environment |= {f"DUCKDB_MISTRAL_{name.upper()}": str(value) for name, value in BRIEF.items()}
    child = stopped_process(environment)
    assert child is not None
    _started.append(child)
    return child


def stopped_process(environment: dict[str, str]) -> subprocess.Popen[str] | None:
    """Start a process that tells the story; return it once it has stopped, or None where it came to its end."""
    child = subprocess.Popen(
        [sys.executable, "-c", STORY], env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    _, status = os.waitpid(child.pid, os.WUNTRACED)
    if os.WIFSTOPPED(status):
        return child
    child.returncode = os.waitstatus_to_exitcode(status)
    child.communicate()
    return None


def go_on(child: subprocess.Popen[str]) -> str:
    """Let a stopped process go on to its end; return what it said."""
    os.kill(child.pid, signal.SIGCONT)
    said = child.communicate(timeout=60)[1]
    assert child.returncode == 0, said
    return said


@pytest.mark.fault("F42")
@pytest.mark.parametrize("failpoint", ["before-create", "before-request:4"])
@pytest.mark.parametrize("elsewhere", [False, True])
def test_stopped_longer_than_others_look(failpoint: str, elsewhere: bool, emulator: Emulator, home: Path) -> None:
    """A process that wakes after others took it for dead, here or in a copy of its home, takes their job over."""
    child = start(emulator, home, failpoint)
    other = home
    if elsewhere:
        other = home.with_name("copy")
        shutil.copytree(home, other)
    shutil.rmtree(other / "locks")  # as where they are not heard of: a copy, or a disk of the network
    story = Story(emulator, other, settings=BRIEF)
    found = story.go_on()
    assert emulator.witness()["jobs_stored"] == 1
    assert "Traceback" not in go_on(child)
    assert len(found) == 10
    check_invariants(story)
    story.close()


@pytest.mark.fault("F42")
def test_stopped_while_nobody_else_came(emulator: Emulator, home: Path) -> None:
    """A process that wakes late, and finds that nobody has sent its create, writes it down anew and sends it once."""
    child = start(emulator, home, "before-create")
    time.sleep(2.5)
    go_on(child)
    story = Story(emulator, home, settings=BRIEF)
    story.go_on()
    check_invariants(story)
    story.close()


@pytest.mark.fault("F42")
def test_stopped_with_an_answer_under_way(emulator: Emulator, home: Path) -> None:
    """A process that sleeps once its create was answered finds that others have recorded the job."""
    child = start(emulator, home, "after-create")
    shutil.rmtree(home / "locks")
    story = Story(emulator, home, settings=BRIEF)
    story.go_on()
    go_on(child)
    check_invariants(story)
    story.close()
