"""Limits for an answer: how long its headers may take, how slowly it may arrive, how large it may grow.

No honest answer reaches these limits. They end connections that would otherwise be kept busy forever.
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

#: A body that moves fewer bytes than this within the deadline is too slow to wait for.
LEAST_BYTES = 1 << 16
#: How many deadlines a whole transfer may take: the server may need a while to store half a gigabyte after the last
#: byte, and a slow line must be able to deliver a whole answer.
PATIENCE = 10
#: The largest answer except for files: a page of a hundred jobs has a few hundred kilobytes.
LARGEST_ANSWER = 32 << 20
#: Compressed data is unpacked in pieces of at most this size, however much it holds.
PIECE_BYTES = 1 << 20
#: Encodings that are unpacked although they were not asked for; all others are refused.
PACKED = ("gzip", "x-gzip", "deflate")


#: The longest line that is kept whole, and how much is kept of a longer one: enough for its id. Checking a line takes
#: about twenty times its size in memory: with longer ones, a whole job could not be read.
LONGEST_LINE = 128 << 20
KEPT_OF_LINE = 1 << 20
#: If a file's size is unknown, the time allowed grows by its base amount for every this many requests.
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
    """Yield `pieces`; raise `too_slow` if fewer than LEAST_BYTES arrive within `seconds`.

    With `in_all`, everything must arrive within that many seconds.
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
    """Yield the unpacked contents of gzip or zlib `pieces`, in pieces of a bounded size.

    Raises `broken` if they cannot be unpacked, or end too early.
    """
    unpacker = zlib.decompressobj(wbits=32 + zlib.MAX_WBITS)
    begun = False
    try:
        for piece in pieces:
            left = piece
            while left:
                if unpacker.eof:  # several packed files may follow one another
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
    """Yield `pieces`; raise OversizedError if they hold more bytes than `most`."""
    size = 0
    for piece in pieces:
        size += len(piece)
        if size > most:
            raise OversizedError
        yield piece


@dataclass(frozen=True, kw_only=True)
class Allowance:
    """How many bytes a download may have, and how long it may take."""

    most_bytes: float = math.inf
    seconds: float = math.inf

    @classmethod
    def of(cls, requests: int | None, seconds: float = math.inf) -> Allowance:
        """Return the allowance for the answers to `requests` requests; `seconds` is the time for a few of them."""
        if requests is None:
            return cls()
        share = 1 + requests / REQUESTS_IN_TIME
        return cls(most_bytes=PIECE_BYTES + requests * LONGEST_LINE, seconds=seconds * share)

    def spent(self, pieces: Iterable[bytes], clock: Callable[[], float] = time.monotonic) -> Iterator[bytes]:
        """Yield `pieces`; raise OversizedError if they are larger, or take longer, than allowed."""
        until = clock() + self.seconds
        for piece in at_most(pieces, self.most_bytes):
            yield piece
            if clock() > until:
                raise OversizedError


def write_lines(pieces: Iterable[bytes], file: BinaryIO) -> None:
    """Write `pieces` to an empty file; of a line longer than LONGEST_LINE, only the beginning."""
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
    """Limits how long all headers of an answer may take; the HTTP library limits only each single read."""

    def __init__(self, too_slow: type[Exception], clock: Callable[[], float] = time.monotonic) -> None:
        """Raise `too_slow` when a read's time is used up."""
        self._too_slow = too_slow
        self._clock = clock
        self._waiting = threading.local()

    def begin(self) -> None:
        """From here on, this thread reads headers."""
        self._waiting.headers, self._waiting.since = True, None

    def end(self) -> None:
        """From here on, this thread reads bodies, which are paced as streams."""
        self._waiting.headers = False

    def watch(self, client: Any) -> None:
        """Limit the reads of an HTTP client; one with different internals keeps only its own limits."""
        for transport in (client._transport, *client._mounts.values()):
            pool: Any = getattr(transport, "_pool", None)
            if hasattr(pool, "_network_backend"):
                pool._network_backend = _Backend(pool._network_backend, self)

    def written(self) -> None:
        """Start the time over: the answer to what was just written is awaited."""
        self._waiting.since = None

    def left(self, timeout: float | None) -> float | None:
        """Return how long the next read, given `timeout` seconds, may take; raise if no time is left."""
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
    """Opens the connections of an HTTP client; wraps the library's own backend."""

    def __init__(self, backend: Any, patience: HeaderPatience) -> None:
        self._backend = backend
        self._patience = patience

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def connect_tcp(self, *arguments: Any, **named: Any) -> Any:
        return _Connection(self._backend.connect_tcp(*arguments, **named), self._patience)


class _Connection:
    """A connection whose reads of headers share one limit."""

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
