"""The HTTP client for the SDK: timeouts, deadlines, no redirects, and every answer as it arrived."""

from __future__ import annotations

import importlib
import os
import threading
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import getproxies

from duckdb_mistral.api.pacing import (
    LARGEST_ANSWER,
    PACKED,
    PATIENCE,
    HeaderPatience,
    at_most,
    in_pace,
    unpacked,
)
from duckdb_mistral.errors import SettingError
from duckdb_mistral.runtime import interrupts
from duckdb_mistral.runtime.clocks import awake
from duckdb_mistral.settings import is_loopback

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CONNECT_SECONDS = 10.0


class Transport:
    """One HTTP client for one server; safe for several threads, each of which sees its own last answer."""

    def __init__(self, server_url: str, deadline_seconds: float, *, transport: Any = None) -> None:
        """Make a client for `server_url`; `transport` replaces the network in tests.

        `deadline_seconds` is how long the server may be silent, or only trickle, in either direction. Raises
        SettingError if the environment names a proxy or certificates that cannot be used.
        """
        self._deadline = deadline_seconds
        self._process = os.getpid()
        self._answers = threading.local()
        self._http = importlib.import_module("mistralai.client.httpclient").httpx
        http = self._http
        self.error: type[Exception] = http.HTTPError
        self.timed_out: type[Exception] = http.TimeoutException
        #: Errors after which the server certainly received nothing.
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
                f"SSL_CERT_FILE) cannot be used: {_reason(error)}. Fix or unset them, and run the statement again."
            ) from None
        self._headers = HeaderPatience(http.ReadTimeout)
        self._headers.watch(self.client)
        self._streams = _streams(http)
        self.overslept = _overslept(http)
        self._server_time: tuple[int, float] | None = None

    @property
    def last(self) -> Any:
        """The last answer that this thread received, or None if there was none since `forget`."""
        return getattr(self._answers, "last", None)

    @property
    def server_time(self) -> int | None:
        """The server's clock now, in µs since 1970, from the last answer with a time; None if there was none."""
        if self._server_time is None:
            return None
        told, heard_at = self._server_time
        return told + int((awake() - heard_at) * 1_000_000)

    def forget(self) -> None:
        """Reset `last` to None until the next answer."""
        self._answers.last = None

    @contextmanager
    def streaming(self) -> Iterator[None]:
        """In this context, leave the bodies of successful answers unread, for the caller to stream."""
        self._answers.streamed = True
        try:
            yield
        finally:
            self._answers.streamed = False

    @contextmanager
    def sending_until(self, moment: float | None) -> Iterator[None]:
        """Let no request of this thread leave after a moment of `clocks.awake`: raise `overslept` instead."""
        self._answers.moment = moment
        try:
            yield
        finally:
            self._answers.moment = None

    def close(self) -> None:
        """Close the connections, except those of a parent process."""
        if self._process == os.getpid():
            self.client.close()

    def _prepare(self, request: Any) -> None:
        """Set the timeouts of every request in one place, because the SDK's own differ between its versions."""
        upload = request.method == "POST" and request.url.path.endswith("/files")
        # Uncompressed, because nothing says how much compressed data unpacks to.
        request.headers["accept-encoding"] = "identity"
        request.extensions["timeout"] = {
            "connect": min(CONNECT_SECONDS, self._deadline),
            "read": PATIENCE * self._deadline if upload else self._deadline,
            "write": self._deadline,
            "pool": CONNECT_SECONDS,
        }
        sent = in_pace(request.stream, self._deadline, self._http.WriteTimeout)
        request.stream = self._streams(request.stream, sent, heeds_interrupts=upload)
        self._headers.begin()
        moment = getattr(self._answers, "moment", None)
        if moment is not None:
            self._check_time(moment)  # before the headers, and again before the body, without which there is no job
            request.stream = _checked_stream(self._http, request.stream, lambda: self._check_time(moment))

    def _check_time(self, moment: float) -> None:
        if awake() > moment:
            raise self.overslept("the time to send it has passed")

    def _keep(self, response: Any) -> None:
        """Keep the raw answer before the SDK's models see it; raises OversizedError for one that never ends."""
        self._headers.end()
        self._answers.last = response
        told = _server_time(response)
        if told is not None:
            self._server_time = told, awake()
        streamed = response.is_success and getattr(self._answers, "streamed", False)
        in_all = None if streamed else PATIENCE * self._deadline
        pieces = in_pace(response.stream, self._deadline, self._http.ReadTimeout, in_all=in_all)
        packed = response.headers.get("content-encoding", "identity").strip().lower()
        if packed in PACKED:
            del response.headers["content-encoding"]
            pieces = unpacked(pieces, self._http.RemoteProtocolError)
        elif packed not in ("", "identity"):
            raise self._http.RemoteProtocolError(f"it answered in an encoding that was not asked for: {packed[:50]}")
        if not streamed:
            pieces = at_most(pieces, LARGEST_ANSWER)
        response.stream = self._streams(response.stream, pieces, heeds_interrupts=streamed)
        if not streamed:
            response.read()


class NeverAsync:
    """Replaces the SDK's asynchronous client, which would run an event loop when it is garbage-collected."""

    def build_request(self, *_: Any, **__: Any) -> Any:
        """Refuse: nothing here is asynchronous."""
        raise NotImplementedError

    async def send(self, *_: Any, **__: Any) -> Any:
        """Refuse: nothing here is asynchronous."""
        raise NotImplementedError

    async def aclose(self) -> None:
        """Do nothing: there is nothing to close."""


def _streams(http: Any) -> Any:
    """Return a stream class for the HTTP library that this version of the SDK uses."""

    class Stream(http.SyncByteStream):  # type: ignore[misc]
        def __init__(self, stream: Any, pieces: Iterator[bytes], *, heeds_interrupts: bool) -> None:
            self._stream = stream
            self._pieces = pieces
            # Only for whole files: interrupting a create would lose its answer.
            self._heeds_interrupts = heeds_interrupts

        def __iter__(self) -> Iterator[bytes]:
            for piece in self._pieces:
                if self._heeds_interrupts:
                    interrupts.check()
                yield piece

        def close(self) -> None:
            self._stream.close()

    return Stream


def _overslept(http: Any) -> type[Exception]:
    """Return an error class of the HTTP library that this version of the SDK uses, for what was not sent in time."""

    class Overslept(http.TransportError):  # type: ignore[misc]
        pass

    return Overslept


def _checked_stream(http: Any, stream: Any, check: Callable[[], None]) -> Any:
    """Return a stream that calls `check` right before its first byte."""

    class Checked(http.SyncByteStream):  # type: ignore[misc]
        def __iter__(self) -> Iterator[bytes]:
            check()
            yield from stream

        def close(self) -> None:
            stream.close()

    return Checked()


def _reason(error: Exception) -> str:
    """Return what an error of the environment says, unless it may quote a proxy's password."""
    quotes_address = not isinstance(error, ImportError | OSError)
    if quotes_address and any("@" in address for address in getproxies().values()):
        return type(error).__name__
    return str(getattr(error, "strerror", None) or error).rstrip(".")


def _server_time(response: Any) -> int | None:
    try:
        return int(parsedate_to_datetime(response.headers["date"]).timestamp() * 1_000_000)
    except (KeyError, ValueError, OverflowError):
        return None
