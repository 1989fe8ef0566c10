"""The store: documents and bytes that survive the process."""

from __future__ import annotations

import stat
import threading
from typing import TYPE_CHECKING, Any

import pytest

from duckdb_mistral.emulator.store import Store, count_lines

if TYPE_CHECKING:
    from pathlib import Path

#: HTTP, files and threads, which are the same whatever the version of DuckDB.
pytestmark = pytest.mark.newest


def added(store: Store, content: bytes = b"x\n", **others: Any) -> dict[str, Any]:
    """Add a file with this content."""
    path = store.scratch()
    path.write_bytes(content)
    fields = {"name": "a.jsonl", "purpose": "batch", "workspace": "w", "sample_type": "batch_request"} | others
    return store.add_file(path, **fields)


def test_opened_again(tmp_path: Path) -> None:
    """Documents and bytes are there when the directory is opened again."""
    first = Store(tmp_path)
    file = added(first, b"content")
    first.put("jobs", {"id": "j", "made_at": 1.0, "input_files": []})
    first.change("jobs", "j", outcome="done")
    again = Store(tmp_path)
    assert again.get("files", file["id"]) == file
    assert again.get("jobs", "j") == {"id": "j", "made_at": 1.0, "input_files": [], "outcome": "done"}
    assert again.content(file["id"]).read_bytes() == b"content"


def test_what_a_killed_process_leaves(tmp_path: Path) -> None:
    """Bytes that were still arriving when the process was killed are removed."""
    store = Store(tmp_path)
    file = added(store)
    store.scratch().write_bytes(b"half")
    (tmp_path / "jobs" / "x.tmp").write_text("{", encoding="utf-8")
    again = Store(tmp_path)
    assert [document["id"] for document in again.all("files")] == [file["id"]]
    assert sorted(path.suffix for path in tmp_path.rglob("*") if path.is_file()) == [".bytes", ".json"]


def test_copies(tmp_path: Path) -> None:
    """Changing what was returned changes nothing in the store."""
    store = Store(tmp_path)
    file = added(store)
    for found in (store.get("files", file["id"]), store.all("files")[0]):
        assert found is not None
        found["bytes"] = -1
    assert store.all("files") == [file]


def test_order(tmp_path: Path) -> None:
    """Documents are listed newest first, those of one moment in a fixed order."""
    store = Store(tmp_path)
    for name, made_at in (("a", 1.0), ("c", 2.0), ("b", 2.0)):
        store.put("jobs", {"id": name, "made_at": made_at, "input_files": []})
    assert [job["id"] for job in store.all("jobs")] == ["c", "b", "a"]


def test_delete(tmp_path: Path) -> None:
    """The bytes of a deleted file go with it, unless a job was made from them; deleting again changes nothing."""
    store = Store(tmp_path)
    free, used = added(store), added(store)
    store.put("jobs", {"id": "j", "made_at": 1.0, "input_files": [used["id"]]})
    for _ in range(2):
        store.delete("files", free["id"])
        store.delete("files", used["id"])
    assert store.all("files") == []
    assert not store.content(free["id"]).exists()
    assert store.content(used["id"]).read_bytes() == b"x\n"


def test_names_are_no_paths(tmp_path: Path) -> None:
    """An id that is no UUID leads to no file."""
    with pytest.raises(ValueError, match="badly formed"):
        Store(tmp_path).content("../../secret")


def test_private(tmp_path: Path) -> None:
    """The directories of the state are the user's own."""
    Store(tmp_path / "state")
    for name in ("files", "jobs"):
        assert stat.S_IMODE((tmp_path / "state" / name).stat().st_mode) == 0o700


def test_many_threads(tmp_path: Path) -> None:
    """Changes from many threads are all kept."""
    store = Store(tmp_path)
    store.put("jobs", {"id": "j", "made_at": 1.0, "input_files": []})
    threads = [threading.Thread(target=store.change, args=("jobs", "j"), kwargs={f"n{i}": i}) for i in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    job = Store(tmp_path).get("jobs", "j")
    assert job is not None
    assert {job[f"n{i}"] for i in range(20)} == set(range(20))


@pytest.mark.parametrize(
    ("content", "lines"), [(b"", 0), (b"\n", 1), (b"a", 1), (b"a\n", 1), (b"a\nb", 2), (b"\xff\r\n" * 600_000, 600_000)]
)
def test_count_lines(tmp_path: Path, content: bytes, lines: int) -> None:
    """Lines are counted as newlines, with a last one that has none."""
    path = tmp_path / "file"
    path.write_bytes(content)
    assert count_lines(path) == lines
