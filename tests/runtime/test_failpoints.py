"""Failpoints: nothing without the variable, and a death at the named point with it."""

from __future__ import annotations

import signal

import pytest
from support import run_python

from duckdb_mistral.runtime.failpoints import VARIABLE, failpoint

CODE = """
from duckdb_mistral.runtime.failpoints import failpoint
for name in ("one", "two", "one", "three"):
    print(name, flush=True)
    failpoint(name)
print("end", flush=True)
"""


@pytest.mark.parametrize(
    ("asked", "passed"),
    [
        ("", ["one", "two", "one", "three", "end"]),
        ("four", ["one", "two", "one", "three", "end"]),
        ("two", ["one", "two"]),
        ("one:2", ["one", "two", "one"]),
        ("one:3", ["one", "two", "one", "three", "end"]),
        ("*", ["one"]),
        ("*:2", ["one", "two"]),
        ("*:4", ["one", "two", "one", "three"]),
        ("*:5", ["one", "two", "one", "three", "end"]),
    ],
)
def test_where_it_dies(asked: str, passed: list[str]) -> None:
    """A process is killed when it comes by the named point, or any point, for the Nth time."""
    child = run_python(CODE, {VARIABLE: asked} if asked else {})
    assert child.stdout.split() == passed
    assert child.returncode == (0 if passed[-1] == "end" else -signal.SIGKILL)


def test_nothing_without_the_variable() -> None:
    """Without the variable a failpoint does nothing."""
    failpoint("one")
