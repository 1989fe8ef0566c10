"""The demo, where it does not come to its end; that it does is tested with the command line."""

from __future__ import annotations

import duckdb
import pytest

from duckdb_mistral.cli import demo
from duckdb_mistral.errors import MistralBatchError
from duckdb_mistral.runtime.interrupts import INTERRUPTED


def interrupted(_: object) -> None:
    """Stand for Ctrl-C between two statements."""
    raise KeyboardInterrupt


def test_interrupt_during_a_statement(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while a statement waits ends the demo with words that promise nothing of jobs that go on."""
    monkeypatch.setattr(demo, "WAIT", f"SELECT error('{INTERRUPTED}') AS \"%s\"")
    with pytest.raises(MistralBatchError, match="its local server and its job with it") as told:
        demo.run(rows=1, job_seconds=0)
    assert "goes on" not in str(told.value)


def test_interrupt_between_statements(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C between two statements is told in the same words."""
    monkeypatch.setattr(demo, "_print", interrupted)
    with pytest.raises(MistralBatchError, match="its local server and its job with it"):
        demo.run(rows=1, job_seconds=0)


def test_another_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """What fails for another reason is told as it is."""
    monkeypatch.setattr(demo, "WAIT", "SELECT error('out of order') AS \"%s\"")
    with pytest.raises(duckdb.Error, match="out of order"):
        demo.run(rows=1, job_seconds=0)
