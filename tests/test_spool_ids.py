"""Spooling: vectors of lines in, part files within the limits and their custom_ids out."""

from __future__ import annotations

import errno
import json
import shutil
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest

from duckdb_mistral import spool as spooling
from duckdb_mistral.errors import SourceError
from duckdb_mistral.spool import Spool, keys_path, read_keys

if TYPE_CHECKING:
    from pathlib import Path


def lines_of(*custom_ids: str, text: str = "hello") -> pa.Array:
    """Return the request lines of some custom_ids."""
    return pa.array([json.dumps({"custom_id": name, "body": text}, ensure_ascii=False) + "\n" for name in custom_ids])


def write(spool: Spool, *custom_ids: str, text: str = "hello") -> None:
    """Write the lines of some custom_ids, as one vector."""
    spool.write(lines_of(*custom_ids, text=text), pa.array(custom_ids), pa.array(custom_ids))


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Return the directory of a spool."""
    return tmp_path / "spool"


def test_parts_hold_at_most_the_requests_that_are_allowed(directory: Path) -> None:
    """Lines are cut into parts by number, and each part has its own custom_ids beside it."""
    spool = Spool(directory, max_requests=2, max_bytes=10_000)
    write(spool, "a", "b", "c")
    write(spool, "d", "e")
    parts = spool.finish()
    assert [part.request_count for part in parts] == [2, 2, 1]
    found = [[json.loads(line)["custom_id"] for line in part.path.read_text().splitlines()] for part in parts]
    assert found == [["a", "b"], ["c", "d"], ["e"]]
    for part, names in zip(parts, found, strict=True):
        ids = read_keys(part.path)
        assert ids is not None
        assert ids.column("custom_id").to_pylist() == names
        assert part.input_bytes == part.path.stat().st_size


def test_parts_hold_at_most_the_bytes_that_are_allowed(directory: Path) -> None:
    """No part is larger than the limit, and no line is cut."""
    size = len(lines_of("a")[0].as_py())
    spool = Spool(directory, max_requests=100, max_bytes=2 * size + 1)
    write(spool, *"abcde")
    assert [part.input_bytes for part in spool.finish()] == [2 * size, 2 * size, size]


def test_null_lines_are_left_out_with_their_ids(directory: Path) -> None:
    """A NULL line, of a row that is refused, leaves neither a line nor a custom_id."""
    spool = Spool(directory, max_requests=100, max_bytes=10_000)
    (a, c) = lines_of("a", "c").to_pylist()
    names = pa.array(["a", None, "c"])
    spool.write(pa.array([a, None, c]), names, names)
    (part,) = spool.finish()
    ids = read_keys(part.path)
    assert ids is not None
    assert ids.column("custom_id").to_pylist() == ["a", "c"]
    assert part.request_count == 2


@pytest.mark.parametrize("character", ["\u2028", "\u2029", "\u0085"])
def test_line_breaks_of_other_alphabets_are_escaped(directory: Path, character: str) -> None:
    """What Python's splitlines would cut at comes out escaped, and means the same."""
    spool = Spool(directory, max_requests=100, max_bytes=10_000)
    write(spool, "a", text=f"one{character}two é € 東")
    (part,) = spool.finish()
    text = part.path.read_text(encoding="utf-8")
    assert character not in text
    assert json.loads(text)["body"] == f"one{character}two é € 東"


def test_a_slice_of_a_vector_is_written_as_such(directory: Path) -> None:
    """A vector that is a slice of a larger one leaves only its own rows."""
    spool = Spool(directory, max_requests=100, max_bytes=10_000)
    names = pa.array(list("abcd")).slice(1, 2)
    spool.write(lines_of(*"abcd").slice(1, 2), names, names)
    (part,) = spool.finish()
    assert part.path.read_text() == "".join(lines_of("b", "c").to_pylist())
    ids = read_keys(part.path)
    assert ids is not None
    assert ids.column("custom_id").to_pylist() == ["b", "c"]


def test_ids_that_are_damaged_are_not_read(directory: Path) -> None:
    """Cut-off or missing custom_ids are told as none, so that the requests are read instead."""
    spool = Spool(directory, max_requests=100, max_bytes=10_000)
    write(spool, *"abc")
    (part,) = spool.finish()
    path = keys_path(part.path)
    path.write_bytes(path.read_bytes()[:-20])
    assert read_keys(part.path) is None
    path.write_bytes(b"")
    assert read_keys(part.path) is None
    path.unlink()
    assert read_keys(part.path) is None


def test_a_full_disk_is_a_sentence(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is full ends in a sentence with the place and the way out, and not in a crash."""
    spool = Spool(directory, max_requests=100, max_bytes=10_000)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(spool, "_write_slice", full)
    write(spool, "a")
    write(spool, "b")
    with pytest.raises(SourceError, match=r"could not be written to .*spool: No space left .* Nothing was sent"):
        spool.finish()
    spool.discard()
    assert not directory.exists()


def test_a_disk_that_is_nearly_full_is_left_some_room(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Spooling stops, with the same sentence, before it takes the last room that other programs need."""
    monkeypatch.setattr(spooling, "CHECKED_BYTES", 100)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=5))
    spool = Spool(directory, max_requests=100, max_bytes=10_000)
    write(spool, "a")
    assert spool.failure is None
    write(spool, *"bcdefgh")
    write(spool, "i", text="x" * 100)
    with pytest.raises(SourceError, match="No space left on device"):
        spool.finish()
    spool.discard()


def test_a_line_longer_than_a_file_is_refused(directory: Path) -> None:
    """One request that no file can hold is refused, with its size and its beginning."""
    spool = Spool(directory, max_requests=100, max_bytes=50)
    write(spool, "a", text="x" * 100)
    with pytest.raises(SourceError, match=r'more than a file may hold .* It begins {"custom_id": "a"'):
        spool.finish()
