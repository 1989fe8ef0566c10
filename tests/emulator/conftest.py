"""The fixtures of the tests of the local batch server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from emulator.calling import Caller

if TYPE_CHECKING:
    from duckdb_mistral.emulator import Emulator


@pytest.fixture
def caller(emulator: Emulator) -> Caller:
    """Return a client of `emulator`."""
    return Caller(emulator)
