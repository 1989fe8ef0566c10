"""The HTTP client that the SDK works with: timeouts, deadlines, no redirects, and every answer as it arrived."""

from __future__ import annotations

import importlib
import threading
import time
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import getproxies

from duckdb_mistral import interrupts
from duckdb_mistral.errors import SettingError
from duckdb_mistral.settings import is_loopback

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

CONNECT_SECONDS = 10.0
#: Storing half a gigabyte may take the server a while after the last byte: so many times the deadline.
UPLOAD_PATIENCE = 10
#: A body that moves fewer bytes than this within the deadline will not end within a person's patience.
LEAST_BYTES = 1 << 16


class Transport:
    """One HTTP client for one server; safe for several threads, each of which sees its own last answer."""

    def __init__(self, server_url: str, deadline_seconds: float, *, transport: Any = None) -> None:
        """Make a client for `server_url`; `transport` takes the network's place in tests.

        `deadline_seconds` is how long the server may keep silent, or keep dripping, in either direction. Raises
        SettingError where the environment names a proxy or certificates that cannot be used.
        """
        self._deadline = deadline_seconds
        self._answers = threading.local()
        self._http = importlib.import_module("mistralai.client.httpclient").httpx
        http = self._http
        self.error: type[Exception] = http.HTTPError
        #: Errors after which it is certain that the server got nothing.
        self.not_sent = (http.ConnectError, http.ConnectTimeout, http.PoolTimeout, http.ProxyError)
        try:
            self.client = http.Client(
                follow_redirects=False,
                trust_env=not is_loopback(urlsplit(server_url).hostname or ""),
                transport=transport,
                event_hooks={"request": [self._prepare], "response": [self._keep]},
            )
        except (ImportError, OSError, ValueError, http.InvalidURL) as error:
            raise SettingError(
                "The proxy or certificate settings of the environment (HTTPS_PROXY, ALL_PROXY, NO_PROXY, "
                f"SSL_CERT_FILE) cannot be used: {_reason(error)}. Mend or unset them, and run the statement again."
            ) from None
        self._paced = _paced_streams(http, deadline_seconds)
        self._server_time: int | None = None

    @property
    def last(self) -> Any:
        """The last answer that this thread got, or None where there was none since `forget`."""
        return getattr(self._answers, "last", None)

    @property
    def server_time(self) -> int | None:
        """The server's clock as its last answer told it, in µs since 1970; None where none did."""
        return self._server_time

    def forget(self) -> None:
        """Let `last` be None until the next answer."""
        self._answers.last = None

    @contextmanager
    def streaming(self) -> Iterator[None]:
        """Leave the bodies of good answers unread meanwhile, for the caller to stream."""
        self._answers.streamed = True
        try:
            yield
        finally:
            self._answers.streamed = False

    def close(self) -> None:
        """Close the connections."""
        self.client.close()

    def _prepare(self, request: Any) -> None:
        """Set the timeouts of every request in one place: the SDK's own differ between its versions."""
        upload = request.method == "POST" and request.url.path.endswith("/files")
        request.extensions["timeout"] = {
            "connect": min(CONNECT_SECONDS, self._deadline),
            "read": UPLOAD_PATIENCE * self._deadline if upload else self._deadline,
            "write": self._deadline,
            "pool": CONNECT_SECONDS,
        }
        request.stream = self._paced(request.stream, self._http.WriteTimeout, heeds_interrupts=upload)

    def _keep(self, response: Any) -> None:
        """Keep the raw answer, before the SDK's models see it."""
        self._answers.last = response
        self._server_time = _server_time(response)
        streamed = response.is_success and getattr(self._answers, "streamed", False)
        response.stream = self._paced(response.stream, self._http.ReadTimeout, heeds_interrupts=streamed)
        if not streamed:
            response.read()


class NeverAsync:
    """Stands for the SDK's own asynchronous client, which would run an event loop wherever it is collected."""

    def build_request(self, *_: Any, **__: Any) -> Any:
        """Refuse: nothing here is asynchronous."""
        raise NotImplementedError

    async def send(self, *_: Any, **__: Any) -> Any:
        """Refuse: nothing here is asynchronous."""
        raise NotImplementedError

    async def aclose(self) -> None:
        """Do nothing: there is nothing to close."""


def in_pace(
    pieces: Iterable[bytes],
    seconds: float,
    too_slow: type[Exception],
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[bytes]:
    """Yield `pieces`; raise `too_slow` where fewer than LEAST_BYTES came by in so many seconds."""
    started, moved = clock(), 0
    for piece in pieces:
        moved += len(piece)
        if clock() - started > seconds:
            if moved < LEAST_BYTES:
                raise too_slow(f"only {moved} bytes in {seconds:g} seconds")
            started, moved = clock(), 0
        yield piece


def _paced_streams(http: Any, seconds: float) -> Any:
    """Return a class of streams over the library that this version of the SDK uses."""

    class Paced(http.SyncByteStream):  # type: ignore[misc]
        def __init__(self, stream: Any, too_slow: type[Exception], *, heeds_interrupts: bool) -> None:
            self._stream = stream
            self._too_slow = too_slow
            # Whole files alone: an interrupted create would be one whose answer is lost.
            self._heeds_interrupts = heeds_interrupts

        def __iter__(self) -> Iterator[bytes]:
            for piece in in_pace(self._stream, seconds, self._too_slow):
                if self._heeds_interrupts:
                    interrupts.check()
                yield piece

        def close(self) -> None:
            self._stream.close()

    return Paced


def _reason(error: Exception) -> str:
    """Return what an error of the environment says; not where it may quote the password of a proxy."""
    quotes_address = not isinstance(error, ImportError | OSError)
    if quotes_address and any("@" in address for address in getproxies().values()):
        return type(error).__name__
    return str(getattr(error, "strerror", None) or error).rstrip(".")


def _server_time(response: Any) -> int | None:
    try:
        return int(parsedate_to_datetime(response.headers["date"]).timestamp() * 1_000_000)
    except (KeyError, ValueError, OverflowError):
        return None
