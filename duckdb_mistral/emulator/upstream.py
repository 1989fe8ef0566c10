"""Model servers (vLLM, llama.cpp, Ollama, anything OpenAI-compatible), and a connection to one of them."""

from __future__ import annotations

import http.client
import json
import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import SplitResult, urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Statuses worth another try: the server is busy, or broken for now.
RETRIED = (408, 429, 500, 502, 503, 504)
#: Of these, the statuses of a server that answers no request for now; 502 also stands for one that does not answer.
AWAY = (502, 503, 504)
CONNECT_SECONDS = 10.0
LONGEST_TOLD_ERROR = 1000


@dataclass(frozen=True, kw_only=True)
class Upstream:
    """Where the models are and how to call them; ValueError if an address or the key cannot be right."""

    #: One or several servers with the same models, of which any may answer a request.
    urls: tuple[str, ...]
    #: How many requests each of them gets at once.
    concurrency: int = 16
    key: str | None = field(default=None, repr=False)
    #: How long one answer may take.
    timeout_seconds: float = 600.0
    attempts: int = 8
    #: The wait before the second attempt; it doubles with each, up to the longest.
    first_wait_seconds: float = 0.5
    longest_wait_seconds: float = 60.0

    def __post_init__(self) -> None:
        for url, address in zip(self.urls, self.addresses(), strict=True):
            if address.scheme not in ("http", "https") or not address.hostname:
                raise ValueError(f"The upstream {url!r} is not an address such as http://127.0.0.1:8000.")
        if not self.urls:
            raise ValueError("An upstream needs at least one address.")
        if self.concurrency < 1:
            raise ValueError(f"The concurrency must be at least 1, not {self.concurrency}.")
        if self.key is not None and not (self.key.isascii() and self.key.isprintable() and " " not in self.key):
            raise ValueError("The upstream's key contains a space, a newline or another character that no key has.")

    def addresses(self) -> Iterator[SplitResult]:
        """Yield the addresses without a trailing /v1, as OpenAI's clients have it: the endpoints begin with it."""
        for url in self.urls:
            yield urlsplit(url.rstrip("/").removesuffix("/v1"))


class Reply(NamedTuple):
    """What a server answered: the status, the JSON, and how many seconds it asks us to wait."""

    status: int
    content: Any
    asked_to_wait: float = 0.0


class Line:
    """A persistent connection to one server, for one thread at a time; `hang_up` may be called from another."""

    def __init__(self, address: SplitResult, *, key: str | None, timeout_seconds: float) -> None:
        """Connect when first needed; an answer may take `timeout_seconds`."""
        self._path = address.path
        self._timeout_seconds = timeout_seconds
        kind = http.client.HTTPSConnection if address.scheme == "https" else http.client.HTTPConnection
        self._connection = kind(address.netloc.rpartition("@")[2], timeout=min(CONNECT_SECONDS, timeout_seconds))
        self._headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if key:
            self._headers["Authorization"] = f"Bearer {key}"

    def post(self, path: str, body: bytes) -> Reply:
        """POST `body` once; a failure to get an answer is a reply too."""
        try:
            is_connected = self._connection.sock is not None
            if not is_connected:
                self._connection.connect()
                self._connection.sock.settimeout(self._timeout_seconds)
            self._connection.request("POST", self._path + path, body=body, headers=self._headers)
            response = self._connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            return Reply(502, _told(502, f"The upstream did not answer: {error or type(error).__name__}"))
        seconds = response.getheader("Retry-After", "")
        asked_to_wait = float(seconds) if seconds.isdecimal() else 0.0
        try:
            return Reply(response.status, json.loads(content, parse_constant=_no_json), asked_to_wait)
        except (ValueError, RecursionError):
            status = 502 if response.status == http.HTTPStatus.OK else response.status
            text = content[:LONGEST_TOLD_ERROR].decode(errors="replace")
            return Reply(status, _told(status, f"The upstream's answer is not JSON: {text}"), asked_to_wait)

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


def _told(status: int, message: str) -> dict[str, Any]:
    return {"object": "error", "message": message, "type": "upstream_error", "param": None, "code": str(status)}


def _no_json(name: str) -> Any:
    raise ValueError(name)
