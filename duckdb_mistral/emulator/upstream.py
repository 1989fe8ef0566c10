"""A model server (vLLM, llama.cpp, Ollama, anything OpenAI-compatible), asked one request at a time."""

from __future__ import annotations

import http.client
import json
import random
import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, urlsplit

if TYPE_CHECKING:
    import threading

#: Statuses worth another try: the server is busy, or broken for now.
RETRIED = (408, 429, 500, 502, 503, 504)
LONGEST_TOLD_ERROR = 1000


@dataclass(frozen=True, kw_only=True)
class Upstream:
    """Where the models are and how to call them; ValueError if the address or the key cannot be right."""

    url: str
    #: How many requests run at once.
    concurrency: int = 16
    key: str | None = field(default=None, repr=False)
    #: How long one answer may take.
    timeout_seconds: float = 600.0
    attempts: int = 8
    #: The wait before the second attempt; it doubles with each, up to the longest.
    first_wait_seconds: float = 0.5
    longest_wait_seconds: float = 60.0

    def __post_init__(self) -> None:
        if self.address.scheme not in ("http", "https") or not self.address.hostname:
            raise ValueError(f"The upstream {self.url!r} is not an address such as http://127.0.0.1:8000.")
        if self.concurrency < 1:
            raise ValueError(f"The concurrency must be at least 1, not {self.concurrency}.")
        if self.key is not None and not (self.key.isascii() and self.key.isprintable() and " " not in self.key):
            raise ValueError("The upstream's key contains a space, a newline or another character that no key has.")

    @property
    def address(self) -> SplitResult:
        """The address without a trailing /v1, as OpenAI's clients have it, because the endpoints begin with it."""
        return urlsplit(self.url.rstrip("/").removesuffix("/v1"))


class Line:
    """A persistent connection to the upstream, for one thread; `hang_up` may be called from another."""

    def __init__(self, upstream: Upstream, stopped: threading.Event) -> None:
        """Connect when first needed; once `stopped` is set, send no more."""
        self._upstream = upstream
        self._stopped = stopped
        kind = http.client.HTTPSConnection if upstream.address.scheme == "https" else http.client.HTTPConnection
        self._connection = kind(upstream.address.netloc.rpartition("@")[2], timeout=upstream.timeout_seconds)
        self._headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if upstream.key:
            self._headers["Authorization"] = f"Bearer {upstream.key}"

    def ask(self, path: str, body: bytes) -> tuple[int, Any] | None:
        """POST `body`, repeatedly if that may help; return the answer's status and JSON, or None once stopped."""
        wait = self._upstream.first_wait_seconds
        for attempt in range(1, self._upstream.attempts + 1):
            if self._stopped.is_set():
                return None
            status, answer, asked_to_wait = self._post(path, body)
            if status not in RETRIED or attempt == self._upstream.attempts:
                break
            pause = max(asked_to_wait, wait * random.uniform(0.5, 1))  # noqa: S311  to spread load, not for secrecy
            self._stopped.wait(min(pause, self._upstream.longest_wait_seconds))
            wait *= 2
        return None if self._stopped.is_set() and status in RETRIED else (status, answer)

    def hang_up(self) -> None:
        """End the connection, along with any request under way on it."""
        connected = self._connection.sock
        if connected is not None:
            try:
                connected.shutdown(socket.SHUT_RDWR)
            except OSError:
                return  # it had ended by itself

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _post(self, path: str, body: bytes) -> tuple[int, Any, float]:
        """Return the status, the JSON, and how many seconds the server asks us to wait."""
        try:
            self._connection.request("POST", self._upstream.address.path + path, body=body, headers=self._headers)
            response = self._connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            return 502, _told(502, f"The upstream did not answer: {error or type(error).__name__}"), 0.0
        seconds = response.getheader("Retry-After", "")
        asked_to_wait = float(seconds) if seconds.isdecimal() else 0.0
        try:
            return response.status, json.loads(content, parse_constant=_no_json), asked_to_wait
        except (ValueError, RecursionError):
            status = 502 if response.status == http.HTTPStatus.OK else response.status
            text = content[:LONGEST_TOLD_ERROR].decode(errors="replace")
            return status, _told(status, f"The upstream's answer is not JSON: {text}"), asked_to_wait


def _told(status: int, message: str) -> dict[str, Any]:
    return {"object": "error", "message": message, "type": "upstream_error", "param": None, "code": str(status)}


def _no_json(name: str) -> Any:
    raise ValueError(name)
