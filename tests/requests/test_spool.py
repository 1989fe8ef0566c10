"""The spool: whole vectors in, part files within the limits out."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from support import no_room

from duckdb_mistral.errors import SourceError
from duckdb_mistral.requests import spool as spooling
from duckdb_mistral.requests.keys import KEYS, read_keys
from duckdb_mistral.requests.spool import Spool
from duckdb_mistral.state.names import keys_path


def spool_of(directory: Path, *, requests: int = 1000, size: int = 1_000_000) -> Spool:
    """Return an empty spool."""
    return Spool(directory / "spool", max_requests=requests, max_bytes=size)


def vector(*lines: str | None, kind: pa.DataType | None = None) -> pa.Array:
    """Return lines as DuckDB hands them over, each ended by a newline."""
    return pa.array([None if line is None else f"{line}\n" for line in lines], kind or pa.string())


def write(spool: Spool, lines: pa.Array | pa.ChunkedArray) -> None:
    """Write lines whose custom_ids are their own text, and whose requests are that in capitals."""
    chunks = lines.chunks if isinstance(lines, pa.ChunkedArray) else [lines]
    names = [pc.utf8_rtrim(chunk, "\n") for chunk in chunks]
    requests = [pc.utf8_upper(chunk) for chunk in names]
    spool.write(lines, pa.chunked_array(names), pa.chunked_array(requests))


def contents(spool: Spool) -> list[str]:
    """Finish a spool and return the text of its parts, beside each of which lie its keys."""
    parts = spool.finish()
    assert [part.part for part in parts] == list(range(1, len(parts) + 1))
    for part in parts:
        data = part.path.read_bytes()
        assert part.input_bytes == len(data)
        assert part.request_count == data.count(b"\n")
        assert part.path.stat().st_mode & 0o777 == 0o600
        keys = read_keys(part.path)
        assert keys is not None
        lines = data.decode().split("\n")[:-1]
        assert keys["custom_id"].to_pylist() == lines
        assert keys["request"].to_pylist() == [line.upper() for line in lines]
    return [part.path.read_text(encoding="utf-8") for part in parts]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_lines_as_they_are(tmp_path: Path, kind: pa.DataType) -> None:
    """Lines of any Arrow text type are written one after the other, NULLs left out."""
    spool = spool_of(tmp_path)
    write(spool, vector("a", None, "é日", kind=kind))
    write(spool, pa.chunked_array([vector("b", kind=kind), vector(None, "c", kind=kind)]))
    write(spool, vector(kind=kind))
    assert contents(spool) == ["a\né日\nb\nc\n"]


def test_slices_of_a_vector(tmp_path: Path) -> None:
    """A slice of a larger array writes its own lines alone."""
    spool = spool_of(tmp_path)
    lines = vector("zero", "one", None, "three", "four")
    write(spool, lines.slice(1, 3))
    write(spool, lines.slice(4))
    write(spool, lines.slice(2, 1))
    assert contents(spool) == ["one\nthree\nfour\n"]


def test_nothing(tmp_path: Path) -> None:
    """A spool without lines has no parts."""
    spool = spool_of(tmp_path)
    write(spool, vector(None, None))
    assert contents(spool) == []


@pytest.mark.parametrize("requests", [1, 2, 3, 7, 100])
@pytest.mark.parametrize("step", [1, 4, 10])
def test_split_by_requests(tmp_path: Path, requests: int, step: int) -> None:
    """No part holds more requests than allowed, all but the last are full, and the order is kept."""
    spool = spool_of(tmp_path, requests=requests)
    lines = [str(number) for number in range(10)]
    for start in range(0, 10, step):
        write(spool, vector(*lines[start : start + step]))
    parts = [text.split() for text in contents(spool)]
    assert [line for part in parts for line in part] == lines
    assert [len(part) for part in parts[:-1]] == [requests] * (len(parts) - 1)


@pytest.mark.parametrize("size", [6, 7, 11, 12, 13, 1000])
@pytest.mark.parametrize("step", [1, 3, 10])
def test_split_by_bytes(tmp_path: Path, size: int, step: int) -> None:
    """No part holds more bytes than allowed, and no part could have taken the next line."""
    spool = spool_of(tmp_path, size=size)
    lines = [f"{'é' * (number % 3)}{number}" for number in range(10)]
    for start in range(0, 10, step):
        write(spool, vector(*lines[start : start + step]))
    parts = contents(spool)
    assert "".join(parts) == "".join(f"{line}\n" for line in lines)
    sizes = [len(part.encode()) for part in parts]
    assert max(sizes) <= size
    for filled, following in zip(sizes, parts[1:], strict=False):
        assert filled + len(following.splitlines(keepends=True)[0].encode()) > size


def test_line_that_is_too_long(tmp_path: Path) -> None:
    """A line that no file may hold is refused with its size and beginning, also among others."""
    for before in ((), ("short",)):
        spool = spool_of(tmp_path / str(len(before)), size=50)
        write(spool, vector(*before, "x" * 60, "short"))
        write(spool, vector("more"))
        with pytest.raises(SourceError, match=r"61 bytes.*50, the setting max_bytes_per_file.*begins xxx"):
            spool.finish()


@pytest.mark.parametrize("halved", [2, spooling.HALVED])
def test_hashes_that_repeat(halved: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hashes that were there before are told, across vectors and as often as asked; without any, none repeats."""
    monkeypatch.setattr(spooling, "HALVED", halved)
    spool = spool_of(tmp_path)
    assert not spool.may_repeat()
    for number in range(3):
        texts = vector(f"a{number}", f"b{number}")
        hashes = pa.chunked_array([pa.array([number, 2**64 - 1 - number], pa.uint64())])
        spool.write(texts, texts, texts, hashes)
        assert not spool.may_repeat()
    texts = vector("c")
    spool.write(texts, texts, texts, pa.chunked_array([pa.array([2**64 - 2], pa.uint64())]))
    assert spool.may_repeat()
    assert spool.may_repeat()
    spool.discard()


def test_threads(tmp_path: Path) -> None:
    """Lines written by several threads are all there, each whole, and no part is too large."""
    spool = spool_of(tmp_path, requests=700)

    def work(name: int) -> None:
        for start in range(0, 1000, 50):
            write(spool, vector(*(f"{name}-{number}-{'x' * (number % 50)}" for number in range(start, start + 50))))

    threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    parts = [text.split() for text in contents(spool)]
    assert sorted(line for part in parts for line in part) == sorted(
        f"{name}-{number}-{'x' * (number % 50)}" for name in range(4) for number in range(1000)
    )
    assert [len(part) for part in parts] == [700] * 5 + [500]


def test_disk_that_fills_up(tmp_path: Path) -> None:
    """A disk that fills up is told as a sentence at the end, and what comes after is passed over."""
    spool = spool_of(tmp_path)
    write(spool, vector("before"))
    spool._file.close()
    spool._file = Path("/dev/full").open("wb", buffering=0)  # noqa: SIM115  the spool closes it
    write(spool, vector("a"))
    write(spool, vector("b"))
    assert isinstance(spool.failure, OSError)
    with pytest.raises(
        SourceError, match=r"could not be written to .*spool: No space left on device\. Nothing was sent\. Free"
    ):
        spool.finish()
    spool.discard()
    assert not (tmp_path / "spool").exists()


def test_keys_that_find_no_room(tmp_path: Path) -> None:
    """A disk that has room for the requests and none for their keys is told as well, however late it is noticed."""
    spool = spool_of(tmp_path)
    write(spool, vector("a"))
    keys_path(tmp_path / "spool" / "part-00001.jsonl").unlink()
    spool._keys_file.close()
    spool._keys_file = pa.BufferedOutputStream(pa.OSFile("/dev/full", "wb"), 1 << 20)
    spool._keys = pa.ipc.new_file(spool._keys_file, KEYS)
    write(spool, vector("b"))
    assert spool.failure is None
    with pytest.raises(
        SourceError, match=r"could not be written to .*spool: No space left on device\. Nothing was sent\. Free"
    ):
        spool.finish()
    spool.discard()
    assert not (tmp_path / "spool").exists()


def test_file_that_may_not_grow(tmp_path: Path) -> None:
    """A write that only succeeds in part is told, and is no shorter file."""
    spool = spool_of(tmp_path)
    with no_room(left=1000):
        write(spool, vector("x" * 600))
        write(spool, vector("y" * 600))
    with pytest.raises(SourceError, match="File too large"):
        spool.finish()


@pytest.mark.parametrize("room", [[5_000_000], [100_000_000, 5_000_000]], ids=["at first", "in the end"])
def test_disk_that_is_nearly_full(room: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Spooling does not begin, or stops, with a sentence, before it takes the last room that other programs need."""
    left = iter(room)
    monkeypatch.setattr(spooling, "CHECKED_BYTES", 10)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: (10**12, 0, next(left)))
    spool = spool_of(tmp_path)
    write(spool, vector("a" * 20))
    assert (spool.failure is None) == (len(room) == 2)
    write(spool, vector("b"))
    write(spool, vector("c"))
    with pytest.raises(
        SourceError,
        match=r"written to .*spool: its disk has only 5 MB left, and 64 MB must stay free\. Nothing was sent\.",
    ):
        spool.finish()
    spool.discard()


def test_keys_that_cannot_be_read(tmp_path: Path) -> None:
    """Keys that are cut off, empty, of other columns or gone count as none; then the requests are read instead."""
    spool = spool_of(tmp_path)
    write(spool, vector(*"abc"))
    (part,) = spool.finish()
    path = keys_path(part.path)
    path.write_bytes(path.read_bytes()[:-20])
    assert read_keys(part.path) is None
    path.write_bytes(b"")
    assert read_keys(part.path) is None
    others = pa.table({"custom_id": ["a"]})
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, others.schema) as writer:
        writer.write_table(others)
    assert read_keys(part.path) is None
    path.unlink()
    assert read_keys(part.path) is None


def test_directory_is_the_owners_alone(tmp_path: Path) -> None:
    """The directory of a spool is made for it, for nobody else to read, and goes with it."""
    spool = spool_of(tmp_path)
    assert spool.directory.stat().st_mode & 0o777 == 0o700
    write(spool, vector("a"))
    spool.discard()
    assert not spool.directory.exists()
    with pytest.raises(FileExistsError):
        Spool(tmp_path, max_requests=1, max_bytes=1)


def test_finishing_twice(tmp_path: Path) -> None:
    """Finishing again returns the same parts."""
    spool = spool_of(tmp_path)
    write(spool, vector("a"))
    assert spool.finish() == spool.finish()


def test_discarding_what_is_owned(tmp_path: Path) -> None:
    """What is somebody's when a spool is discarded stays, and the spool's lock goes all the same."""
    released: list[bool] = []
    spool = Spool(
        tmp_path / "spool", max_requests=1, max_bytes=1000, owned=lambda: True, release=lambda: released.append(True)
    )
    write(spool, vector("a"))
    (part,) = spool.finish()
    spool.discard()
    assert part.path.exists()
    assert released == [True]
