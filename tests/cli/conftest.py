"""The shell that tests of the commands share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from cli.terminal import PROMPTS, Terminal

if TYPE_CHECKING:
    from pathlib import Path

    from duckdb_mistral.emulator import Emulator


@pytest.fixture
def terminal(emulator: Emulator, tmp_path: Path) -> Terminal:
    """Return a shell with a file of prompts."""
    (tmp_path / "prompts.sql").write_text(PROMPTS, encoding="utf-8")
    return Terminal(emulator, tmp_path)
