"""What an answer may take: headers that drip, bodies that never end, packings that swell, lines of any length."""

from __future__ import annotations

import gzip
import io
import json
import socket
import threading
import time
import zlib
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support import KEY

from duckdb_mistral.api import pacing
from duckdb_mistral.api.client import BatchClient
from duckdb_mistral.api.pacing import Allowance, HeaderPatience, OversizedError, in_pace, unpacked, write_lines
from duckdb_mistral.errors import ApiError, UnreachableError
from duckdb_mistral.runtime.retry_policy import Retry
from duckdb_mistral.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

JOB_ID = "3f2a9c1e-0000-4000-8000-00000000000a"
OK = b"HTTP/1.1 200 OK\r\n"
OCTETS = b"content-type: application/octet-stream\r\n"
DEADLINE = 0.4


class Clock:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now

    def ticking(self, pieces: Iterable[bytes], seconds: float) -> Iterator[bytes]:
        """Yield pieces that take so many seconds each."""
        for piece in pieces:
            self.now += seconds
            yield piece


@contextmanager
def serving(answer: Callable[[str], Iterable[bytes]]) -> Iterator[BatchClient]:
    """Yield a client of a server that answers a request by pieces, from its first line, and then closes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=talk, args=(connection,), daemon=True).start()

        def talk(connection: socket.socket) -> None:
            with connection, suppress(OSError):
                asked = connection.recv(1 << 16).split(b"\r\n")[0].decode()
                for piece in answer(asked):
                    connection.sendall(piece)

        threading.Thread(target=serve, daemon=True).start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        settings = Settings(api_key=KEY, server_url=url, home=Path(), deadline_seconds=DEADLINE)
        with BatchClient(settings, retry=Retry(budget_seconds=0)) as client:
            yield client


def dripping(piece: bytes, seconds: float = 0.05) -> Iterator[bytes]:
    """Yield a piece again and again, slowly, for many times the deadline."""
    for _ in range(400):
        yield piece
        time.sleep(seconds)


@pytest.mark.fault("F55")
@pytest.mark.parametrize(
    "start", [OK + b"x-long: ", OK, b"HTTP/1.1 103 Early Hints\r\n\r\n"], ids=["one", "many", "1xx"]
)
def test_headers_that_drip(start: bytes) -> None:
    """Headers that come byte by byte, line by line or again and again end a call at its deadline."""

    def answer(_: str) -> Iterator[bytes]:
        yield start
        yield from dripping(start if start.endswith(b"\r\n\r\n") else b"x: y\r\n" if start == OK else b"x")

    with (
        serving(answer) as client,
        pytest.raises(UnreachableError, match=r"timed out|headers did not end") as caught,
    ):
        client.create(file_id=JOB_ID, endpoint="/v1/chat/completions", model="m", metadata={}, timeout_hours=24)
    assert caught.value.sent


@pytest.mark.fault("F55")
def test_answer_that_drips() -> None:
    """An answer that is no file ends within some deadlines, however many bytes it brings within each."""
    with (
        serving(lambda _: iter([OK, b"\r\n["])) as client,
        pytest.raises(ApiError),
    ):
        client.get(JOB_ID)
    with (
        serving(
            lambda _: (piece for pieces in ([OK + b"\r\n["], dripping(b" " * 40_000)) for piece in pieces)
        ) as client,
        pytest.raises(UnreachableError, match="did not end in 4 seconds"),
    ):
        client.get(JOB_ID)


@pytest.mark.fault("F55")
@pytest.mark.parametrize("told", [None, 1000])
def test_download_without_end(told: int | None, tmp_path: Path) -> None:
    """A download of a few rows ends although it moves, at what the server says of the file's size, or after a time."""

    def answer(asked: str) -> Iterator[bytes]:
        if "/content" not in asked:
            if told is None:
                yield b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"
            else:
                body = json.dumps({"id": JOB_ID, "bytes": told}).encode()
                yield OK + b"content-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body) + body
            return
        yield OK + OCTETS + b"\r\n"
        yield from dripping(b'{"custom_id": "0"}\n' * 5_000)

    with serving(answer) as client, pytest.raises(ApiError, match="is larger, or takes longer, than any real answer"):
        client.download(JOB_ID, tmp_path / "file", 2)
    assert (tmp_path / "file").read_bytes().startswith(b'{"custom_id": "0"}\n')


@pytest.mark.fault("F55")
def test_length_that_is_told(tmp_path: Path) -> None:
    """A file that is told to be larger than any that two requests could have is not begun."""

    def answer(_: str) -> Iterator[bytes]:
        yield OK + OCTETS + b"content-length: %d\r\n\r\n" % (1 << 42)

    with serving(answer) as client, pytest.raises(ApiError, match="is larger, or takes longer, than any real answer"):
        client.download(JOB_ID, tmp_path / "file", 2)
    assert not (tmp_path / "file").exists()


def packed(body: bytes, encoding: bytes = b"gzip") -> Callable[[str], Iterator[bytes]]:
    """Return a server that answers by packed bytes."""
    return lambda _: iter([OK + OCTETS + b"content-encoding: " + encoding + b"\r\n\r\n" + body])


@pytest.mark.fault("F55")
def test_gzip_bombs(tmp_path: Path) -> None:
    """Packed answers are unpacked although nobody asked for them, up to what an answer may have, in little memory."""
    import tracemalloc

    with serving(packed(gzip.compress(b'{"id": "x"}\n' * 10))) as client:
        client.download(JOB_ID, tmp_path / "file", 10)
        assert (tmp_path / "file").read_bytes() == b'{"id": "x"}\n' * 10
    body = json.dumps({"id": JOB_ID, "status": "QUEUED"}).encode()
    with serving(packed(zlib.compress(body), b"deflate")) as client:
        assert client.get(JOB_ID).status == "QUEUED"
    bomb = gzip.compress(b" " * (200 << 20))
    with serving(packed(bomb)) as client:
        tracemalloc.start()
        with pytest.raises(ApiError, match="is larger, or takes longer, than any real answer"):
            client.get(JOB_ID)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 4 * pacing.LARGEST_ANSWER


@pytest.mark.fault("F55")
@pytest.mark.parametrize("encoding", [b"gzip, gzip", b"br", b"zstd"])
def test_packings_that_were_not_asked_for(encoding: bytes, tmp_path: Path) -> None:
    """An answer in another packing, or in several, is refused unread."""
    with serving(packed(b"x", encoding)) as client:
        with pytest.raises(UnreachableError, match="an encoding that was not asked for"):
            client.get(JOB_ID)
        with pytest.raises(UnreachableError, match="an encoding that was not asked for"):
            client.download(JOB_ID, tmp_path / "file", 2)


@pytest.mark.fault("F27")
def test_gzip_that_is_cut(tmp_path: Path) -> None:
    """A packed file that ends too early is no whole file, although its connection ended cleanly."""
    with serving(packed(gzip.compress(b'{"id": "x"}\n' * 1000)[:-9])) as client, pytest.raises(UnreachableError):
        client.download(JOB_ID, tmp_path / "file", 10)


# The pieces


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
def test_unpacked(size: int) -> None:
    """What was packed comes out as it was, in bounded pieces, also where it is several files, or none."""
    content = bytes(range(256)) * 20_000
    for data in (
        gzip.compress(content),
        zlib.compress(content),
        gzip.compress(content[:99]) + gzip.compress(content[99:]),
    ):
        pieces = list(unpacked((data[start : start + size] for start in range(0, len(data), size)), ValueError))
        assert b"".join(pieces) == content
        assert max(map(len, pieces)) <= pacing.PIECE_BYTES
    assert list(unpacked([], ValueError)) == []
    for broken in (b"no gzip at all", gzip.compress(content)[:-1]):
        with pytest.raises(ValueError, match="compressed body"):
            list(unpacked([broken], ValueError))


def test_in_pace() -> None:
    """A body that moves too little within the deadline, or does not end in all of its time, is given up."""
    clock = Clock()
    assert len(list(in_pace(clock.ticking([b"x" * 70_000] * 10, 1), 0.5, ValueError, clock))) == 10
    with pytest.raises(ValueError, match=r"only 3 bytes in 2 seconds"):
        list(in_pace(clock.ticking([b"x"] * 10, 1), 2, ValueError, clock))
    with pytest.raises(ValueError, match=r"did not end in 5 seconds"):
        list(in_pace(clock.ticking([b"x" * 70_000] * 10, 1), 2, ValueError, clock, in_all=5))


def test_allowance() -> None:
    """More requests may have more bytes and more time, and where their number is not known anything goes."""
    assert Allowance.of(None, 1) == Allowance()
    few, many = Allowance.of(2, 10), Allowance.of(100_000, 10)
    assert few.seconds == pytest.approx(10, rel=0.01)
    assert many.seconds > 1000
    assert many.most_bytes > few.most_bytes
    clock = Clock()
    with pytest.raises(OversizedError):
        list(Allowance(seconds=5).spent(clock.ticking([b"x"] * 10, 1), clock))
    with pytest.raises(OversizedError):
        list(Allowance(most_bytes=5).spent([b"x"] * 10))
    assert list(Allowance(most_bytes=5).spent([b"x"] * 5)) == [b"x"] * 5


@pytest.mark.parametrize("size", [1, 3, 8, 1000])
def test_lines_that_are_too_long(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a line that is too long its beginning is kept, and the other lines as they are."""
    monkeypatch.setattr(pacing, "LONGEST_LINE", 20)
    monkeypatch.setattr(pacing, "KEPT_OF_LINE", 5)
    content = b"a\n" + b"b" * 20 + b"\n" + b"c" * 4_000 + b"\nd\n\n" + b"e" * 3_000
    file = io.BytesIO()
    write_lines((content[start : start + size] for start in range(0, len(content), size)), file)
    found = file.getvalue().split(b"\n")
    if size < 1000:
        assert found == [b"a", b"b" * 20, b"ccccc", b"d", b"", b"eeeee"]
    else:  # a piece is seen as a whole
        assert [line[:5] for line in found] == [b"a", b"bbbbb", b"ccccc", b"d", b"", b"eeeee"]
        assert max(map(len, found)) <= size


def test_patience_begins_with_each_write() -> None:
    """The time of headers begins when what they answer was written, and is not that of bodies."""
    clock = Clock()
    patience = HeaderPatience(ValueError, clock)
    assert patience.left(5) == 5
    patience.begin()
    assert patience.left(5) == 5
    clock.now = 4
    assert patience.left(5) == 1
    patience.written()
    assert patience.left(5) == 5
    clock.now = 9
    with pytest.raises(ValueError, match="headers did not end in 5 seconds"):
        patience.left(5)
    patience.end()
    assert patience.left(5) == 5
    assert patience.left(None) is None
