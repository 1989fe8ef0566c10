"""The cells of the tables, and the directory that a case works in."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.processes import Measured

MEGABYTE = 1_000_000


class Scratch(TemporaryDirectory[str]):
    """A temporary directory that is entered as a Path."""

    def __init__(self, parent: Path) -> None:
        parent.mkdir(parents=True, exist_ok=True)
        super().__init__(dir=parent, ignore_cleanup_errors=True)

    def __enter__(self) -> Path:  # type: ignore[override]
        return Path(super().__enter__())


def seconds(count: float) -> str:
    """Return a time as a cell of a table."""
    return f"{count:.2f} s" if count >= 0.1 else f"{count * 1000:.0f} ms"


def steps(measured: Measured) -> str:
    """Return the time of all steps, and of each."""
    each_step = ", ".join(f"{name} {seconds(taken)}" for name, taken in measured.seconds.items())
    return f"{seconds(measured.total)} ({each_step})"


def each(taken: float, rows: int) -> str:
    """Return the time per request."""
    return f"{taken / rows * 1e6:.1f} µs"


def ratio(one: float, other: float) -> str:
    """Return how many times the other one is what this one is."""
    return f"**{one / other:.2f}**" if other else ""


def plain(one: float, other: float) -> str:
    """Return the same of a ratio that is not the one to read first."""
    return ratio(one, other).strip("*")


def megabytes(count: float) -> str:
    """Return a number of bytes."""
    return f"{count / MEGABYTE:,.0f} MB"


def memory_of(measured: Measured) -> str:
    """Return the most memory that was held, and what was added."""
    return f"{megabytes(measured.peak_bytes)} ({megabytes(measured.added_bytes)} added)"


def tenths(count: float) -> str:
    """Return a number of bytes that may be small."""
    return f"{count / MEGABYTE:,.1f} MB" if count < 10 * MEGABYTE else megabytes(count)
