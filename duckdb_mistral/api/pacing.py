"""What an answer may take: how long its headers may be under way, how slowly it may come, how large it may grow.

Each limit is one that no honest answer meets, so that whoever keeps a connection busy without end is told of.
"""

from __future__ import annotations

import math
import threading
import time
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

#: A body that moves fewer bytes than this within the deadline will not end within a person's patience.
LEAST_BYTES = 1 << 16
#: Storing half a gigabyte may take the server a while after the last byte, and a slow line has to bring an answer in
#: full: so many times the deadline.
PATIENCE = 10
#: The largest answer but for files: a page of a hundred jobs has a few hundred kilobytes.
LARGEST_ANSWER = 32 << 20
#: What is packed comes out in pieces of at most this size, however much is in it.
PIECE_BYTES = 1 << 20
#: What is unpacked here although it was not asked for; another way of packing is refused.
PACKED = ("gzip", "x-gzip", "deflate")


#: The longest line of a file that is read as one, and the beginning that is kept of a longer one: enough for its id.
LONGEST_LINE = 512 << 20
KEPT_OF_LINE = 1 << 20
#: Without a told size, so many requests more get the time again that a few have.
REQUESTS_IN_TIME = 1_000


class OversizedError(Exception):
    """An answer is larger than any honest one."""


def in_pace(
    pieces: Iterable[bytes],
    seconds: float,
    too_slow: type[Exception],
    clock: Callable[[], float] = time.monotonic,
    *,
    in_all: float | None = None,
) -> Iterator[bytes]:
    """Yield `pieces`; raise `too_slow` where fewer than LEAST_BYTES came by in so many seconds.

    With `in_all`, all of it has to come by within so many.
    """
    began = started = clock()
    moved = 0
    for piece in pieces:
        moved += len(piece)
        now = clock()
        if in_all is not None and now - began > in_all:
            raise too_slow(f"it did not end in {in_all:g} seconds")
        if now - started > seconds:
            if moved < LEAST_BYTES:
                raise too_slow(f"only {moved} bytes in {seconds:g} seconds")
            started, moved = now, 0
        yield piece


def unpacked(pieces: Iterable[bytes], broken: type[Exception]) -> Iterator[bytes]:
    """Yield what gzip or zlib has packed into `pieces`, in pieces of a bounded size.

    Raises `broken` where it cannot be unpacked, or ends too early.
    """
    unpacker = zlib.decompressobj(wbits=32 + zlib.MAX_WBITS)
    begun = False
    try:
        for piece in pieces:
            left = piece
            while left:
                if unpacker.eof:  # what is packed may be several files after one another
                    unpacker = zlib.decompressobj(wbits=32 + zlib.MAX_WBITS)
                begun = True
                yield unpacker.decompress(left, PIECE_BYTES)
                left = unpacker.unused_data if unpacker.eof else unpacker.unconsumed_tail
        while begun and not unpacker.eof and (rest := unpacker.decompress(b"", PIECE_BYTES)):
            yield rest
    except zlib.error as error:
        raise broken(f"its compressed body cannot be unpacked: {error}") from None
    if begun and not unpacker.eof:
        raise broken("its compressed body ended too early")


def at_most(pieces: Iterable[bytes], most: float) -> Iterator[bytes]:
    """Yield `pieces`; raise OversizedError where they hold more bytes than `most`."""
    size = 0
    for piece in pieces:
        size += len(piece)
        if size > most:
            raise OversizedError
        yield piece


@dataclass(frozen=True, kw_only=True)
class Allowance:
    """How many bytes a download may bring, and how long it may take to do so."""

    most_bytes: float = math.inf
    seconds: float = math.inf

    @classmethod
    def of(cls, requests: int | None, seconds: float = math.inf) -> Allowance:
        """Return what the answers to so many requests may take, of which a few have `seconds`."""
        if requests is None:
            return cls()
        share = 1 + requests / REQUESTS_IN_TIME
        return cls(most_bytes=PIECE_BYTES + requests * LONGEST_LINE, seconds=seconds * share)

    def spent(self, pieces: Iterable[bytes], clock: Callable[[], float] = time.monotonic) -> Iterator[bytes]:
        """Yield `pieces`; raise OversizedError where they are more, or take longer, than is allowed."""
        until = clock() + self.seconds
        for piece in at_most(pieces, self.most_bytes):
            yield piece
            if clock() > until:
                raise OversizedError


def write_lines(pieces: Iterable[bytes], file: BinaryIO) -> None:
    """Write what comes to an empty file; of a line longer than LONGEST_LINE, its beginning alone."""
    start = end = 0
    cut = False
    for piece in pieces:
        newline = piece.rfind(b"\n")
        if cut:
            if newline < 0:
                continue
            piece = piece[piece.find(b"\n") :]
            newline = piece.rfind(b"\n")
        file.write(piece)
        end += len(piece)
        cut = False
        if newline >= 0:
            start = end - len(piece) + newline + 1
        if end - start > LONGEST_LINE:
            cut = True
            end = start + KEPT_OF_LINE
            file.seek(end)
            file.truncate()


class HeaderPatience:
    """How long the headers of an answer may be under way in all; the HTTP library limits the single bytes alone."""

    def __init__(self, too_slow: type[Exception], clock: Callable[[], float] = time.monotonic) -> None:
        """Raise `too_slow` past the time that a read is given."""
        self._too_slow = too_slow
        self._clock = clock
        self._waiting = threading.local()

    def begin(self) -> None:
        """Let the reads of this thread be those of headers from here on."""
        self._waiting.headers, self._waiting.since = True, None

    def end(self) -> None:
        """Let the reads of this thread be those of bodies, which are paced as streams."""
        self._waiting.headers = False

    def watch(self, client: Any) -> None:
        """Limit the reads of an HTTP client; one whose inside is of another kind keeps its own limits alone."""
        for transport in (client._transport, *client._mounts.values()):
            pool: Any = getattr(transport, "_pool", None)
            if hasattr(pool, "_network_backend"):
                pool._network_backend = _Backend(pool._network_backend, self)

    def written(self) -> None:
        """Begin anew: the answer to what was just written is waited for."""
        self._waiting.since = None

    def left(self, timeout: float | None) -> float | None:
        """Return how long the next read may take that is given so many seconds; raise where none are left."""
        if timeout is None or not getattr(self._waiting, "headers", False):
            return timeout
        now = self._clock()
        if self._waiting.since is None:
            self._waiting.since = now
        left: float = self._waiting.since + timeout - now
        if left <= 0:
            raise self._too_slow(f"its headers did not end in {timeout:g} seconds")
        return left


class _Backend:
    """What opens the connections of an HTTP client, around the library's own."""

    def __init__(self, backend: Any, patience: HeaderPatience) -> None:
        self._backend = backend
        self._patience = patience

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def connect_tcp(self, *arguments: Any, **named: Any) -> Any:
        return _Connection(self._backend.connect_tcp(*arguments, **named), self._patience)


class _Connection:
    """A connection whose reads of headers are limited together."""

    def __init__(self, stream: Any, patience: HeaderPatience) -> None:
        self._stream = stream
        self._patience = patience

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def read(self, max_bytes: int, timeout: float | None = None) -> Any:
        return self._stream.read(max_bytes, self._patience.left(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._patience.written()
        self._stream.write(buffer, timeout)

    def start_tls(self, *arguments: Any, **named: Any) -> Any:
        return _Connection(self._stream.start_tls(*arguments, **named), self._patience)
