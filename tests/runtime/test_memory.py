"""A process that may use little memory: told in a sentence, where Arrow would wait without end."""

from __future__ import annotations

import pytest
from support import run_python

CODE = """
import resource
import sys
from pathlib import Path
import pyarrow.dataset
import duckdb
import duckdb_mistral
import duckdb_mistral.functions.udfs
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (int(sys.argv[1]) << 20), resource.RLIM_INFINITY))
try:
    duckdb_mistral.connect()
except duckdb_mistral.SettingError as error:
    sys.exit(str(error))
"""


@pytest.mark.fault("F56")
def test_too_little_memory() -> None:
    """Where a limit leaves too little memory, registering says so, and how much would do."""
    child = run_python(CODE, {}, "100")
    assert child.returncode == 1
    assert "(ulimit -v)" in child.stderr
    assert "so nothing was sent. Allow it" in child.stderr
    assert "Traceback" not in child.stderr


@pytest.mark.fault("F56")
def test_enough_memory() -> None:
    """A limit that leaves enough is none."""
    child = run_python(CODE, {}, "4000")
    assert child.returncode == 0, child.stderr
