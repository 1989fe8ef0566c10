"""The Harlequin adapter, loaded by Harlequin's own plug-in loader."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING

import duckdb
import pytest
from support import asked_for_money, environment_of

import duckdb_mistral
from duckdb_mistral.emulator import Emulator

pytest.importorskip("harlequin", reason="harlequin pins versions that are too new for this environment")

from harlequin.app import Harlequin
from harlequin.exception import HarlequinConnectionError, HarlequinQueryError
from harlequin.plugins import load_adapter

from duckdb_mistral.harlequin import CATALOG_LABEL, FunctionItem, MistralAdapter, MistralConnection

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from harlequin.driver import HarlequinDriver


def adapter_of(database: str, **options: bool) -> MistralAdapter:
    """Return the adapter as `harlequin -a mistral DATABASE` makes it."""
    adapter = load_adapter("mistral")
    assert issubclass(adapter, MistralAdapter)
    return adapter((database,), no_init=True, **options)


@pytest.fixture
def _environment(emulator: Emulator, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the functions find the emulator."""
    for name, value in environment_of(emulator, home).items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def connection(tmp_path: Path, _environment: None) -> Iterator[MistralConnection]:
    """Yield what Harlequin connects to: a database with a staging table."""
    opened = adapter_of(str(tmp_path / "my.duckdb")).connect()
    opened.execute("CREATE TABLE staging AS SELECT 1 AS custom_id, 'a prompt' AS prompt")
    yield opened
    opened.conn.close()


class Recorder:
    """What Harlequin gives to an interaction, remembering what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    def insert_text_at_selection(self, text: str) -> None:
        """Remember a text for the editor."""
        self.asked.append(("insert", text))

    def notify(self, message: str) -> None:
        """Remember a message."""
        self.asked.append(("notify", message))


def function_items(connection: MistralConnection) -> dict[str, FunctionItem]:
    """Return the functions of the catalog by name."""
    (label,) = [item for item in connection.get_catalog().items if item.label == CATALOG_LABEL]
    return {item.label: item for item in label.children if isinstance(item, FunctionItem)}


def test_catalog(connection: MistralConnection) -> None:
    """The catalog shows the database and every public function with its parameters."""
    assert "my" in [item.label for item in connection.get_catalog().items]
    with duckdb_mistral.connect() as other:
        public = "SELECT function_name FROM duckdb_functions() WHERE comment IS NOT NULL AND database_name = 'temp'"
        names = {name for (name,) in other.execute(public).fetchall()}
    items = function_items(connection)
    assert "mistral_batch_submit" in names
    assert set(items) == names
    assert [child.label for child in items["mistral_batch_wait"].children] == ["id", "timeout_seconds"]


def test_help(connection: MistralConnection) -> None:
    """A function's menu inserts a call and shows its parameters and its comment."""
    item = function_items(connection)["mistral_batch_results"]
    recorder = Recorder()
    driver: HarlequinDriver = recorder  # type: ignore[assignment]  # of a driver, the two methods are what is used
    for _, interaction in FunctionItem.INTERACTIONS:
        interaction(item, driver)
    (_, inserted), (_, shown) = recorder.asked
    assert inserted == "FROM mistral_batch_results()"
    assert shown.startswith("mistral_batch_results(id, partial)\n\nThe results of a submission or job id")


def test_completions(connection: MistralConnection) -> None:
    """The editor completes the functions and the names of their parameters, and none of the internal ones."""
    completions = {completion.label: completion.value for completion in connection.get_completions()}
    assert completions["mistral_batch_submit"] == "mistral_batch_submit"
    assert completions["timeout_hours"] == "timeout_hours := "
    assert "read_csv" in completions
    assert connection.validate_sql("FROM mistral_batch_status()") != ""


def test_query(connection: MistralConnection, emulator: Emulator) -> None:
    """Queries of the editor submit once, wait, and read the joined answers."""
    submitted = connection.execute("SELECT submission_id FROM mistral_batch_submit('staging')")
    assert submitted is not None
    (row,) = submitted.set_limit(500).fetchall().to_pylist()  # type: ignore[union-attr]
    submission_id = row["submission_id"]
    connection.conn.execute(f"FROM mistral_batch_wait('{submission_id}')").fetchall()
    cursor = connection.execute(
        "SELECT s.prompt, r.content FROM staging s "
        f"JOIN mistral_batch_results('{submission_id}') r ON r.custom_id = s.custom_id::VARCHAR"
    )
    assert cursor is not None
    assert cursor.columns() == [("prompt", "s"), ("content", "s")]
    assert cursor.fetchall().to_pylist() == [{"prompt": "a prompt", "content": "echo: a prompt"}]  # type: ignore[union-attr]
    assert asked_for_money(emulator) == (1, 1)


def test_error(connection: MistralConnection) -> None:
    """An error reaches the editor as the same sentence."""
    cursor = connection.execute("FROM mistral_batch_results('nothing')")
    assert cursor is not None
    with pytest.raises(HarlequinQueryError, match="'nothing' is not an id"):
        cursor.fetchall()


def test_unusable_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A setting that cannot be used is told when Harlequin connects."""
    monkeypatch.setenv("DUCKDB_MISTRAL_POLL_SECONDS", "soon")
    with pytest.raises(HarlequinConnectionError, match="DUCKDB_MISTRAL_POLL_SECONDS must be a number of seconds"):
        adapter_of(str(tmp_path / "my.duckdb")).connect()


def test_read_only(connection: MistralConnection, tmp_path: Path) -> None:
    """A database that is opened read-only has the functions too."""
    connection.conn.execute("CHECKPOINT")
    connection.conn.close()
    opened = adapter_of(str(tmp_path / "my.duckdb"), read_only=True).connect()
    cursor = opened.execute("SELECT total_requests FROM mistral_batch_submit('staging')")
    assert cursor is not None
    assert cursor.fetchall().to_pylist() == [{"total_requests": 1}]  # type: ignore[union-attr]
    opened.conn.close()


def test_cancelled_wait(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cancelling a query that waits for a batch ends the wait, and the connection goes on."""
    with Emulator(tmp_path / "slow", job_seconds=3600) as slow:
        for name, value in environment_of(slow, home).items():
            monkeypatch.setenv(name, value)
        opened = adapter_of(":memory:").connect()
        opened.execute("CREATE TABLE staging AS SELECT 1 AS custom_id, 'a prompt' AS prompt")
        (job_id,) = opened.conn.execute("SELECT job_id FROM mistral_batch_submit('staging')").fetchall()[0]
        before = slow.witness()["requests"].get("job", 0)
        ended: list[str] = []

        def wait() -> None:
            try:
                opened.conn.execute(f"FROM mistral_batch_wait('{job_id}')").fetchall()
            except duckdb.Error as error:
                ended.append(str(error))

        waiting = threading.Thread(target=wait)
        waiting.start()
        while slow.witness()["requests"].get("job", 0) == before:
            time.sleep(0.01)
        opened.cancel()
        waiting.join(60)
        assert len(ended) == 1
        (answer,) = opened.conn.execute("SELECT 42").fetchall()
        assert answer == (42,)
        opened.conn.close()


@pytest.mark.usefixtures("_environment")
def test_application(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Harlequin itself starts on a database and lists the functions in its catalog."""
    for variable in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):  # where it keeps its own state
        monkeypatch.setenv(variable, str(tmp_path / variable))
    adapter = adapter_of(str(tmp_path / "my.duckdb"))

    async def labels() -> list[str]:
        app = Harlequin(adapter=adapter, connection_hash="tests")
        async with app.run_test(size=(120, 36)) as pilot:
            for _ in range(600):
                tree = app.query_one("DatabaseTree")
                found = [str(node.label) for node in tree.root.children]  # type: ignore[attr-defined]
                if found:
                    return found
                await pilot.pause(0.05)
        return []

    assert any(CATALOG_LABEL in label for label in asyncio.run(labels()))
