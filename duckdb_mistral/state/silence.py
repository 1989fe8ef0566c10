"""Giving up a server that keeps silent: its connection is shut down by another thread, as if it had broken.

A server that is stopped, or whose disk hangs, acknowledges what the network brings: the driver would wait forever.
"""

from __future__ import annotations

import os
import socket
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def given_up_after(seconds: float, connection: Any) -> Iterator[None]:
    """Shut a driver's connection down if the block takes longer; what waits for it then finds that it has broken."""
    timer = threading.Timer(seconds, _shut_down, [connection])
    timer.daemon = True
    with suppress(RuntimeError):  # when Python ends it starts no more threads, but a lock may still be let go of
        timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _shut_down(connection: Any) -> None:
    # Closed in the meantime, it has no socket any more, which is an error of the driver's own kind.
    with suppress(Exception), socket.socket(fileno=os.dup(connection.fileno())) as opened:
        opened.shutdown(socket.SHUT_RDWR)
