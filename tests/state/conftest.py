"""A ledger on each engine, and through a pooler."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from postgres import new_ledger

from duckdb_mistral.state.home import Home
from duckdb_mistral.state.ledger import Ledger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture(params=["sqlite", "postgresql", "pgbouncer"])
def opened(request: pytest.FixtureRequest, home: Path) -> Iterator[Callable[[], Ledger]]:
    """Yield what opens the ledger of a test once more, on each engine."""
    address = new_ledger(request.param)
    found: list[Ledger] = []

    def opens() -> Ledger:
        found.append(Ledger(Home(home), address))
        return found[-1]

    yield opens
    for ledger in found:
        ledger.database.close()


@pytest.fixture
def ledger(opened: Callable[[], Ledger]) -> Ledger:
    """Return an empty ledger."""
    return opened()
