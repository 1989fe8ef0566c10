"""Puts requests through to an upstream's servers: the least busy one first, and none that is away."""

from __future__ import annotations

import random
import threading
import time
from typing import TYPE_CHECKING, Any

from duckdb_mistral.emulator.upstream import AWAY, RETRIED, Line, Reply, Upstream

if TYPE_CHECKING:
    from urllib.parse import SplitResult

LOOK_SECONDS = 0.2


class _Server:
    """One server: its lines, which of them are idle, and whether it is away."""

    def __init__(self, address: SplitResult, upstream: Upstream) -> None:
        self.lines = [
            Line(address, key=upstream.key, timeout_seconds=upstream.timeout_seconds)
            for _ in range(upstream.concurrency)
        ]
        self.idle = self.lines.copy()
        #: How long it is left out this time; 0 while it answers.
        self.away_seconds = 0.0
        self.back_at = 0.0

    def is_due(self) -> bool:
        """Tell whether it has been left out long enough for one request to try it."""
        is_quiet = len(self.idle) == len(self.lines)
        return self.away_seconds > 0 and is_quiet and time.monotonic() >= self.back_at


class Switchboard:
    """The lines to all servers of an upstream, for the threads of one job."""

    def __init__(self, upstream: Upstream, stopped: threading.Event) -> None:
        """Connect when first needed; once `stopped` is set, send no more."""
        self._upstream = upstream
        self._stopped = stopped
        self._changed = threading.Condition()
        self._servers = [_Server(address, upstream) for address in upstream.addresses()]
        #: How many requests may be under way at once.
        self.lines = sum(len(server.lines) for server in self._servers)

    def ask(self, path: str, body: bytes) -> tuple[int, Any] | None:
        """POST `body`, repeatedly if that may help; return the answer's status and JSON, or None once stopped."""
        wait = self._upstream.first_wait_seconds
        server: _Server | None = None
        for attempt in range(1, self._upstream.attempts + 1):
            taken = self._take(other_than=server)
            if taken is None:
                return None
            server, line = taken
            reply = line.post(path, body)
            self._give_back(server, line, reply)
            if reply.status not in RETRIED or attempt == self._upstream.attempts:
                break
            pause = max(reply.asked_to_wait, wait * random.uniform(0.5, 1))  # noqa: S311  to spread load, not for secrecy
            self._stopped.wait(min(pause, self._upstream.longest_wait_seconds))
            wait *= 2
        return None if self._stopped.is_set() and reply.status in RETRIED else (reply.status, reply.content)

    def hang_up(self) -> None:
        """End all connections, along with any request under way on them."""
        for server in self._servers:
            for line in server.lines:
                line.hang_up()

    def close(self) -> None:
        """Close all connections."""
        for server in self._servers:
            for line in server.lines:
                line.close()

    def _take(self, *, other_than: _Server | None) -> tuple[_Server, Line] | None:
        """Wait for a line, if possible to a server `other_than` the one that failed; return None once stopped."""
        with self._changed:
            while not self._stopped.is_set():
                free = [server for server in self._answering(other_than) if server.idle]
                if free:
                    server = max(free, key=lambda server: len(server.idle))
                    return server, server.idle.pop()
                self._changed.wait(LOOK_SECONDS)
        return None

    def _answering(self, other_than: _Server | None) -> list[_Server]:
        """Return the servers that a request may go to, idle or not."""
        answering = [server for server in self._servers if not server.away_seconds]
        if not answering:  # any may be asked: a request is given up only after its last attempt
            answering = self._servers
        elif other_than is None:  # a request that has failed once is not used to try a server that is away
            answering += [server for server in self._servers if server.is_due()]
        return [server for server in answering if server is not other_than] or answering

    def _give_back(self, server: _Server, line: Line, reply: Reply) -> None:
        """Put the line back, and leave the server out for a while if it did not answer."""
        with self._changed:
            server.idle.append(line)
            now = time.monotonic()
            if reply.status not in AWAY:
                server.away_seconds = 0.0
            elif not server.away_seconds or now >= server.back_at:  # requests that fail together count once
                longer = max(2 * server.away_seconds, self._upstream.first_wait_seconds, reply.asked_to_wait)
                server.away_seconds = min(longer, self._upstream.longest_wait_seconds)
                server.back_at = now + server.away_seconds
            self._changed.notify_all()
