"""Ctrl-C while a create, a wait or a download goes on: the next statement continues."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import duckdb
import pytest
from faults.harness import CREATE, DOWNLOAD, QUICK, Story, check_invariants
from faults.test_every_step import STORY
from support import clean_environment, environment_of

from duckdb_mistral.batches import collect
from duckdb_mistral.requests.spool import Spool
from duckdb_mistral.runtime.failpoints import failpoint
from duckdb_mistral.state import sqlite
from duckdb_mistral.state.home import Home
from duckdb_mistral.state.ledger import Ledger

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from duckdb_mistral.emulator import Emulator

#: What is going on when Ctrl-C comes: the rule that holds it up, and the server's route that shows that it began.
MOMENTS: dict[str, tuple[dict[str, Any], str]] = {
    "create": (CREATE | {"delay": 8, "after": True}, "create"),
    "wait": ({"method": "GET", "path": "/v1/batch/jobs/.*", "change": {"status": "RUNNING"}, "times": 10_000}, "job"),
    "download": (DOWNLOAD | {"delay": 8, "after": True}, "download"),
}


@pytest.mark.fault("F39")
@pytest.mark.parametrize("moment", MOMENTS)
def test_interrupted(moment: str, emulator: Emulator, home: Path) -> None:
    """An interrupted statement ends at once, cancels nothing, and is continued by the same statement."""
    rule, route = MOMENTS[moment]
    emulator.faults(rule)
    environment = environment_of(emulator, home) | {"DUCKDB_MISTRAL_DEADLINE_SECONDS": "5"}
    child = subprocess.Popen(
        [sys.executable, "-c", STORY], env=clean_environment() | environment, stderr=subprocess.PIPE, text=True
    )
    until = time.monotonic() + 60
    while not emulator.witness()["requests"].get(route) and time.monotonic() < until:
        time.sleep(0.05)
    time.sleep(0.3)
    child.send_signal(signal.SIGINT)
    _, said = child.communicate(timeout=15)
    assert child.returncode != 0
    assert "interrupt" in said.lower()
    emulator.faults()
    story = Story(emulator, home, settings=QUICK, said=[said])
    story.go_on()
    check_invariants(story)
    story.close()


@pytest.mark.fault("F39")
def test_interrupted_once_it_is_recorded(emulator: Emulator, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C right after a submission was recorded leaves its requests, which the same statement then sends."""
    story = Story(emulator, home, settings=QUICK)

    def interrupting(name: str, **_: Any) -> None:
        if name == "after-commit" and Ledger(Home(home)).submissions():
            monkeypatch.setattr(sqlite, "failpoint", failpoint)
            raise KeyboardInterrupt

    monkeypatch.setattr(sqlite, "failpoint", interrupting)
    with pytest.raises((duckdb.Error, RuntimeError, KeyboardInterrupt), match=r"(?i)interrupt"):
        story.submit()
    assert len(list((home / "spool").rglob("*.jsonl"))) == 1
    assert emulator.witness()["creates_received"] == 0
    story.go_on()
    check_invariants(story)
    story.close()


@pytest.mark.fault("F39")
@pytest.mark.parametrize(
    ("piece", "call", "words"),
    [
        ((Spool, "write"), Story.submit, r"Interrupted while the rows were read\. Nothing was sent\."),
        ((collect, "collect"), Story.results, r"Interrupted\. What was sent goes on at the API; the same statement"),
    ],
)
def test_interrupt_is_told_in_words(
    piece: tuple[object, str],
    call: Callable[[Story], object],
    words: str,
    emulator: Emulator,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ctrl-C while rows are read, or results are fetched, is told in words, and the same statement goes on."""
    story = Story(emulator, home, settings=QUICK)

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(*piece, interrupted)
        with pytest.raises(duckdb.Error, match=words):
            call(story)
    assert emulator.witness()["creates_received"] == 0
    story.go_on()
    check_invariants(story)
    story.close()
