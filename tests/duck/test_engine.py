"""DuckDB engines of our own."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import duckdb
import pytest
from support import clean_environment, run_python

from duckdb_mistral.duck.engine import Engines, SharedEngine, SpareEngine, own_engine
from duckdb_mistral.errors import LedgerError

if TYPE_CHECKING:
    from pathlib import Path


def test_more_than_memory_holds(tmp_path: Path) -> None:
    """What does not fit into memory is put into the directory that was named, which is gone in the end."""
    spill = tmp_path / "spill"
    with own_engine(spill) as engine:
        engine.execute("SET memory_limit = '60MB'")
        engine.execute("SET threads = 1")
        engine.execute("CREATE TEMP TABLE many AS SELECT md5(range::VARCHAR) AS text FROM range(3_000_000)")
        assert spill.exists()
        assert engine.execute("SELECT count(*) FROM many").fetchall() == [(3_000_000,)]
    assert not spill.exists()


def test_no_room(tmp_path: Path) -> None:
    """Where neither memory nor disk has room, a sentence says so, and names the directory."""

    def work() -> None:
        with own_engine(tmp_path / "spill") as engine:
            engine.execute("SET memory_limit = '60MB'")
            engine.execute("SET max_temp_directory_size = '1MB'")
            engine.execute("CREATE TEMP TABLE many AS SELECT md5(range::VARCHAR) AS text FROM range(3_000_000)")

    with pytest.raises(LedgerError, match=f"not enough memory, or disk under {tmp_path}, for this work. Nothing is"):
        work()


def test_opened_ahead() -> None:
    """An engine that is opened ahead is the one that the next task gets, and can be closed at any moment."""
    shared = SharedEngine()
    for _ in range(2):
        shared.open_ahead()
    with shared.one() as first:
        first.execute("ATTACH ':memory:' AS kept")
        shared.open_ahead()
    with shared.one() as again:
        assert "kept" in str(again.execute("SHOW DATABASES").fetchall())
    for _ in range(20):
        shared.close()
        shared.open_ahead()
    with shared.one() as last:
        assert "kept" not in str(last.execute("SHOW DATABASES").fetchall())
    shared.close()
    assert shared.is_idle


def test_no_progress_bar_of_our_own(tmp_path: Path) -> None:
    """Where Python is interactive, DuckDB draws a bar for the caller's statements, and none for work inside them."""
    code = """if True:
        del __file__  # without it, DuckDB takes Python for interactive
        import sys
        from pathlib import Path
        import duckdb
        from duckdb_mistral.emulator.answers import _engine
        from duckdb_mistral.duck.engine import own_engine
        SHOWN = "SELECT current_setting('enable_progress_bar')"
        with duckdb.connect() as callers, own_engine() as ours, _engine(Path(sys.argv[1])) as of_the_server:
            print([one.execute(SHOWN).fetchall() for one in (callers, ours, of_the_server)])
    """
    child = run_python(code, clean_environment(), str(tmp_path))
    assert child.stdout.strip() == "[[(True,)], [(False,)], [(False,)]]"


def test_one_work_after_another(tmp_path: Path) -> None:
    """An engine serves several works, each without the tables and settings of the one before, until it is closed."""
    engines = Engines()
    for number in range(3):
        with engines.one(tmp_path / f"spill-{number}") as engine:
            assert engine.execute("SELECT current_setting('temp_directory')").fetchone() == (
                str(tmp_path / f"spill-{number}"),
            )
            assert engine.execute("SELECT current_setting('preserve_insertion_order')").fetchone() == (False,)
            engine.execute("CREATE TEMP TABLE mine AS SELECT 1")
            engine.execute("SET preserve_insertion_order = true")
    engines.close()
    with engines.one() as engine, pytest.raises(duckdb.CatalogException):
        engine.execute("FROM mine")
    engines.close()


def test_a_work_after_one_that_spilled(tmp_path: Path) -> None:
    """A work may spill to its own directory, although the one before has spilled to one that is gone since."""
    engines = Engines()
    for number in range(2):
        spill = tmp_path / f"job-{number}" / "spill"
        spill.parent.mkdir()
        with engines.one(spill) as engine:
            engine.execute("SET memory_limit = '60MB'")
            engine.execute("SET threads = 1")
            engine.execute("CREATE TEMP TABLE many AS SELECT md5(range::VARCHAR) AS text FROM range(3_000_000)")
            assert spill.exists()
            assert engine.execute("SELECT count(*) FROM many").fetchall() == [(3_000_000,)]
        shutil.rmtree(spill.parent)
    engines.close()


def test_spare_engine() -> None:
    """A small call's engine is the next one's, of which nobody else has it; what large work used is closed."""
    spare = SpareEngine()
    first = spare.take()
    with first.one() as engine:
        engine.execute("SELECT 1")
    spare.give_back(first, keep=True)
    second = spare.take()
    third = spare.take()
    assert second is first
    assert third is not first
    spare.give_back(third, keep=False)
    spare.give_back(second, keep=True)
    spare.close()
    assert spare.take() is not second


def test_spare_engine_at_work() -> None:
    """An engine that an interrupted call's thread still works with is not given to the next call."""
    spare = SpareEngine()
    engine = spare.take()
    with engine.one() as connection:
        spare.give_back(engine, keep=True)
        assert connection.execute("SELECT 1").fetchone() == (1,)
        other = spare.take()
        assert other is not engine
    with other.one() as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    spare.give_back(other, keep=False)


def test_spare_engine_in_a_child() -> None:
    """A child of fork leaves the engine to its parent and opens one of its own."""
    code = """if True:
        import os, sys, warnings
        from duckdb_mistral.duck.engine import SpareEngine
        warnings.simplefilter("ignore")
        spare = SpareEngine()
        engine = spare.take()
        with engine.one() as connection:
            connection.execute("SELECT 1")
        spare.give_back(engine, keep=True)
        child = os.fork()
        if not child:
            own = spare.take()
            with own.one() as connection:
                found = connection.execute("SELECT 1").fetchone()
            own.close()
            os._exit(0 if found == (1,) and own is not engine else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert spare.take() is engine
        engine.close()
    """
    child = run_python(code, clean_environment())
    assert (child.returncode, child.stderr) == (0, "")
