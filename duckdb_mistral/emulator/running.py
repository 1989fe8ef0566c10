"""Running the server: in a thread of this process, or as a process of its own."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import socket
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import uvicorn
from starlette.responses import JSONResponse

from duckdb_mistral.emulator.door import check_rules, refusal
from duckdb_mistral.emulator.faults import Faults, Rule
from duckdb_mistral.emulator.server import Server
from duckdb_mistral.emulator.store import Store, fresh_directory
from duckdb_mistral.emulator.work import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from types import TracebackType

    from starlette.types import Receive, Scope, Send

    from duckdb_mistral.emulator.upstream import Upstream

#: The most bytes of rules that another process may set.
LARGEST_RULES = 1_000_000
#: How often a server that stops looks whether its last requests have been answered, in seconds.
LOOK_SECONDS = 0.001


class QuickToStop(uvicorn.Server):
    """Stops as soon as it is told, where uvicorn looks ten times a second, and then waits for the tenth of one more."""

    _told: asyncio.Event | None = None
    _loop: asyncio.AbstractEventLoop | None = None

    def stop(self) -> None:
        """Let the server stop, from any thread."""
        self.should_exit = True
        if self._loop is not None and self._told is not None:
            with suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._told.set)

    async def main_loop(self) -> None:
        """Serve until it is told to stop, by `stop` or by a signal."""
        self._told, self._loop = asyncio.Event(), asyncio.get_running_loop()
        while not await self.on_tick(0):
            with suppress(TimeoutError):
                await asyncio.wait_for(self._told.wait(), 0.1)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer the requests that are there, for as long as the configuration allows, and accept no others."""
        for closed in (*self.servers, *(sockets or ())):
            closed.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        try:
            await asyncio.wait_for(self._all_answered(), self.config.timeout_graceful_shutdown)
        except TimeoutError:
            for task in self.server_state.tasks:
                task.cancel()

    async def _all_answered(self) -> None:
        while not self.force_exit and (self.server_state.connections or self.server_state.tasks):
            await asyncio.sleep(LOOK_SECONDS)


class Emulator:
    """One local batch server on 127.0.0.1; a context manager that starts and stops it."""

    def __init__(
        self,
        directory: Path | str | None = None,
        *,
        port: int = 0,
        job_seconds: float = 0.0,
        upstream: Upstream | None = None,
        **options: Any,
    ) -> None:
        """Serve the state in `directory` (a temporary one by default) on `port` (a free one by default).

        `job_seconds` is how long a job appears to run. With an `upstream`, its models answer instead of the echo.
        `options` are those of `Server`: api_keys, separate_workspaces, max_pending_requests, max_requests_per_job.
        """
        self._temporary = directory is None
        self._directory = Path(directory or "")
        self._job_seconds = job_seconds
        self._upstream = upstream
        self._options = options
        self._port = port
        self._server: QuickToStop | None = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """The server's address."""
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> Self:
        """Listen and serve in a thread; returns once connections are accepted."""
        self._open()
        self._thread = threading.Thread(target=self._serve, daemon=True, name="emulator")
        self._thread.start()
        return self

    def run(self, listening: Callable[[str], None] | None = None) -> None:
        """Listen, print the address, and serve until the process is interrupted or terminated; then tidy up.

        `listening` is called with the address before it is printed.
        """
        self._open()
        if listening is not None:
            listening(self.url)
        print(self.url, flush=True)  # noqa: T201  the one line that a parent process reads
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            self._serve()
        except KeyboardInterrupt:
            pass  # uvicorn raises the signal again when it has stopped
        finally:
            signal.signal(signal.SIGTERM, before)
            self._close()

    def stop(self) -> None:
        """Stop serving, and remove a temporary directory."""
        if self._server is not None:
            self._server.stop()
            self._thread.join()
            self._close()
            self._server = None

    def witness(self) -> dict[str, Any]:
        """Return the counts of the witness."""
        return self._state.witness.counts()

    def faults(self, *rules: Rule | Mapping[str, Any]) -> None:
        """Misbehave by these rules from now on; without rules, behave."""
        self._faults.set(rule if isinstance(rule, Rule) else Rule(**rule) for rule in rules)

    def _open(self) -> None:
        """Take the port, then open the state; connections are accepted from here on."""
        # asyncio turns Nagle's algorithm off only if the protocol is named; otherwise every answer takes 40 ms longer.
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("127.0.0.1", self._port))
            listener.listen(512)
            if self._temporary:
                self._directory = fresh_directory()
            store = Store(self._directory)
        except OSError:
            listener.close()
            raise
        self._port = listener.getsockname()[1]
        self._worker = Worker(store, job_seconds=self._job_seconds, upstream=self._upstream)
        self._state = Server(store, self._worker, **self._options)
        self._faults = Faults(self._state.app())
        config = uvicorn.Config(
            self._app,
            interface="asgi3",
            proxy_headers=False,
            log_level="warning",
            access_log=False,
            date_header=False,  # the answers have their own, which a rule may have changed
            timeout_graceful_shutdown=1,
            ws="none",
            lifespan="off",
        )
        self._server = QuickToStop(config)
        self._listener = listener

    def _serve(self) -> None:
        assert self._server is not None
        self._server.run(sockets=[self._listener])

    def _close(self) -> None:
        self._listener.close()  # uvicorn leaves it open if it is stopped before it has started
        self._worker.close()
        if self._temporary:
            shutil.rmtree(self._directory, ignore_errors=True)

    async def _app(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the emulator's own addresses here, without rules; leave all others to the API."""
        path = scope.get("path", "")
        refused = refusal(scope.get("headers", ()))
        if refused is not None:
            await JSONResponse({"detail": refused}, status_code=403)(scope, receive, send)
        elif not path.startswith("/_emulator/"):
            await self._faults(scope, receive, send)
        elif path == "/_emulator/witness":
            await JSONResponse(self.witness())(scope, receive, send)
        elif path == "/_emulator/faults":
            try:
                rules = await _rules(scope, receive)
                check_rules(rules)
                self.faults(*rules)
            except (ValueError, TypeError) as error:
                await JSONResponse({"detail": str(error)}, status_code=422)(scope, receive, send)
            else:
                await JSONResponse({})(scope, receive, send)
        else:
            await JSONResponse({"detail": "Not Found"}, status_code=404)(scope, receive, send)


async def _rules(scope: Scope, receive: Receive) -> Iterable[Mapping[str, Any]]:
    """Return the rules in a POST; a DELETE has none."""
    body = b""
    while scope["method"] == "POST":
        message = await receive()
        body += message.get("body", b"")
        if len(body) > LARGEST_RULES:
            raise ValueError("these are too many rules")
        if not message.get("more_body"):
            break
    rules: Iterable[Mapping[str, Any]] = json.loads(body) if body else []
    return rules
