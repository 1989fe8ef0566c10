"""The tutorial and the how-to of the shell, typed into the real DuckDB shell."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support import asked_for_money, clean_environment, environment_of

from duckdb_mistral.errors import MistralBatchError
from duckdb_mistral.shell.binary import find_binary
from duckdb_mistral.shell.extension import extension_file

if TYPE_CHECKING:
    from duckdb_mistral.emulator import Emulator

DOCS = Path(__file__).resolve().parents[2] / "docs"


def has_shell() -> bool:
    """Tell whether the official shell is here, and the extension that it loads."""
    try:
        extension_file(find_binary().platform)
    except MistralBatchError:
        return False
    return True


@pytest.mark.skipif(not has_shell(), reason="neither the PATH nor this environment has the official shell")
@pytest.mark.parametrize(
    ("page", "ending"), [("tutorial.md", "echo: Summarise: Please add dark mode."), ("shell.md", "SUCCESS")]
)
def test_in_the_shell(page: str, ending: str, emulator: Emulator, home: Path, tmp_path: Path) -> None:
    """A page's SQL runs in the shell as it stands, ends with what the page shows, and is paid for once."""
    blocks = re.findall(r"```sql\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL)
    ran = subprocess.run(
        [sys.executable, "-m", "duckdb_mistral", "shell", str(tmp_path / "tickets.duckdb"), "-csv"],
        env=clean_environment() | environment_of(emulator, home),
        input="\n".join(blocks),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert ending in ran.stdout
    assert "Error" not in ran.stderr
    assert asked_for_money(emulator) == (1, 1)
