"""A database that is far away: a relay, in a process of its own, that delays all that it passes on."""

from __future__ import annotations

import multiprocessing
import socket
import threading
import time
from contextlib import contextmanager, suppress
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.connection import Connection

#: How much is passed on at once.
CHUNK_BYTES = 1 << 16


class Far:
    """The way to a server, and how often something went there and back."""

    def __init__(self, url: str, trips: Any) -> None:
        """Count in `trips`."""
        self.url = url
        self._trips = trips

    @property
    def trips(self) -> int:
        """How often a client has said something since the server last answered it."""
        count: int = self._trips.value
        return count


@contextmanager
def far_away(url: str, seconds: float) -> Iterator[Far]:
    """Yield the way to the server of an address; what is said there is answered `seconds` later than it would be."""
    parts = urlsplit(url)
    spawn = multiprocessing.get_context("spawn")
    trips = spawn.Value("l", 0)
    mine, theirs = spawn.Pipe()
    process = spawn.Process(target=_relay, args=(parts.port, seconds / 2, trips, theirs), daemon=True)
    process.start()
    try:
        port = mine.recv()
        yield Far(urlunsplit(parts._replace(netloc=f"{parts.username}@127.0.0.1:{port}")), trips)
    finally:
        process.terminate()
        process.join()


def _relay(port: int, delay: float, trips: Any, told: Connection) -> None:
    """Listen on a free port, which is told, and pass everything on to `port` and back, each `delay` seconds later."""
    with socket.create_server(("127.0.0.1", 0), backlog=200) as listener:
        told.send(listener.getsockname()[1])
        while True:
            client, _ = listener.accept()
            server = socket.create_connection(("127.0.0.1", port))
            answered = threading.Event()
            answered.set()

            def asked(answered: threading.Event = answered) -> None:
                if answered.is_set():
                    answered.clear()
                    with trips.get_lock():
                        trips.value += 1

            _pass(client, server, delay, asked)
            _pass(server, client, delay, answered.set)


def _pass(source: socket.socket, target: socket.socket, delay: float, seen: Any) -> None:
    """Pass on what comes, in its order and as fast as it comes, from two threads; `seen` is called for each piece."""
    coming: SimpleQueue[tuple[float, bytes]] = SimpleQueue()
    for one in (source, target):
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def take() -> None:
        data = b"-"
        while data:
            data = b""
            with suppress(OSError):
                data = source.recv(CHUNK_BYTES)
            if data:
                seen()
            coming.put((time.monotonic() + delay, data))

    def give() -> None:
        with suppress(OSError):
            while True:
                due, data = coming.get()
                time.sleep(max(0.0, due - time.monotonic()))
                if not data:
                    break
                target.sendall(data)
        for one in (source, target):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    for work in (take, give):
        threading.Thread(target=work, daemon=True).start()
