"""The servers that tests of the use cases share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from duckdb_mistral.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[Emulator]:
    """Yield a local server whose jobs take a minute."""
    with Emulator(tmp_path / "slow", job_seconds=60) as server:
        yield server
