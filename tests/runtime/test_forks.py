"""Children of fork: they end, and leave what their parent has open to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support import asked_for_money, environment_of, run_python

if TYPE_CHECKING:
    from pathlib import Path

    from duckdb_mistral.emulator import Emulator

CODE = """
import glob, os, signal, sys, threading, warnings
import duckdb_mistral
warnings.simplefilter("ignore")  # newer Pythons warn of a fork beside threads
con = duckdb_mistral.connect()
con.execute("CREATE TABLE staging AS SELECT range AS custom_id, 'p' || range AS prompt FROM range(300_000)")
submit = "SELECT sum(total_requests) FROM mistral_batch_submit('staging')"
found = []
thread = threading.Thread(target=lambda: found.extend(con.execute(submit).fetchall()))
running = {running}
if running:
    thread.start()
    while not glob.glob(os.environ["DUCKDB_MISTRAL_HOME"] + "/spool/*/*"):
        pass
else:
    con.execute("FROM mistral_batch_status()").fetchall()
    list(con.sql("FROM mistral_batch_preview('staging') LIMIT 1").fetchall())
child = os.fork()
if child == 0:
    signal.alarm(60)  # a child that hangs
    del con, thread
    sys.exit(3)
_, status = os.waitpid(child, 0)
print(os.waitstatus_to_exitcode(status))
if not running:
    thread.start()
thread.join()
print(found)
"""


@pytest.mark.parametrize("running", [True, False])
def test_child_ends(running: bool, emulator: Emulator, home: Path) -> None:
    """A child that exits, also while a submit runs, ends with its status, and the parent's submit goes on."""
    ended = run_python(CODE.replace("{running}", str(running)), environment_of(emulator, home))
    assert (ended.stderr, ended.returncode) == ("", 0)
    assert ended.stdout == "3\n[(300000,)]\n"
    assert asked_for_money(emulator) == (3, 3)
