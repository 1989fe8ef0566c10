"""A server whose answers are larger, slower or deeper than any honest one, to see what they can take of the client."""

from __future__ import annotations

import gzip
import socket
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

OK = b"HTTP/1.1 200 OK\r\nconnection: close\r\n"
JSON = OK + b"content-type: application/json\r\n"
BLOCK = b"x" * (1 << 20)
LEVELS = 100_000
#: One line, larger than what is read as one.
LINE_BYTES = 2_200_000_000
#: What a small packed answer holds.
PACKED_BYTES = 3_300_000_000
#: Bytes a second, of an answer that does not end.
TRICKLE = 80_000


def endless() -> Iterator[bytes]:
    """Yield an answer without end, as fast as it is taken."""
    yield OK + b"\r\n"
    while True:
        yield BLOCK


def trickling() -> Iterator[bytes]:
    """Yield an answer without end, slowly."""
    yield OK + b"\r\n"
    while True:
        yield b"x" * (TRICKLE // 10)
        time.sleep(0.1)


def packed() -> Iterator[bytes]:
    """Yield a small answer that unpacks to a very large one."""
    member = gzip.compress(b"x" * 100_000_000)
    body = member * (PACKED_BYTES // 100_000_000)
    yield OK + b"content-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(body)
    yield body


def line() -> Iterator[bytes]:
    """Yield one very long line."""
    yield OK + b"content-length: %d\r\n\r\n" % LINE_BYTES
    for start in range(0, LINE_BYTES, len(BLOCK)):
        yield BLOCK[: LINE_BYTES - start]


def dripping() -> Iterator[bytes]:
    """Yield headers that do not end."""
    yield OK
    while True:
        time.sleep(0.5)
        yield b"x-more: y\r\n"


def deep() -> Iterator[bytes]:
    """Yield JSON of very many levels."""
    body = b"[" * LEVELS + b"]" * LEVELS
    yield JSON + b"content-length: %d\r\n\r\n" % len(body)
    yield body


ANSWERS: dict[str, Callable[[], Iterator[bytes]]] = {
    function.__name__: function for function in (endless, trickling, packed, line, dripping, deep)
}


@contextmanager
def hostile(kind: str) -> Iterator[str]:
    """Answer every request in one way, from a thread; yield the address."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=_serve, args=(listening, ANSWERS[kind]), daemon=True).start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def _serve(listening: socket.socket, answer: Callable[[], Iterator[bytes]]) -> None:
    with suppress(OSError):  # closed at the end
        while True:
            connection, _ = listening.accept()
            threading.Thread(target=_answer, args=(connection, answer), daemon=True).start()


def _answer(connection: socket.socket, answer: Callable[[], Iterator[bytes]]) -> None:
    with suppress(OSError), connection:  # the client has seen enough
        connection.recv(1 << 16)
        for piece in answer():
            connection.sendall(piece)
