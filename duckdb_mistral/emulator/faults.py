"""Misbehaving on request: rules that change what happens to a request, applied around the whole server."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from duckdb_mistral.emulator.door import LONGEST_PATH

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]


@dataclass(kw_only=True)
class Rule:
    """What happens to the requests that it meets; the parts can be combined.

    A rule meets requests whose method and whole path match the regular expressions; it passes over the
    first `skip` of them and acts on the next `times`.
    """

    method: str
    path: str
    skip: int = 0
    times: int = 1
    #: Wait so many seconds first; with `after`, between the work and the answer.
    delay: float = 0.0
    #: Answer this instead; the work is not done, unless `after`.
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    body: str = ""
    #: Do the work first: what was created stays created, only the answer is another.
    after: bool = False
    #: End the connection without an answer; with `after`, once the work is done.
    close: bool = False
    #: Send only so many bytes of the answer's body, then end the connection.
    cut: int | None = None
    #: Send these bytes as the whole HTTP answer and end the connection cleanly.
    raw: str | None = None
    #: Put these members into the JSON answer; a null takes a member out.
    change: dict[str, Any] | None = None

    def meets(self, method: str, path: str) -> bool:
        """Count a request that the rule is about; tell whether it acts on this one."""
        # No path of the API is as long, and a pattern takes the longer the longer they are.
        if len(path) > LONGEST_PATH or not (re.fullmatch(self.method, method) and re.fullmatch(self.path, path)):
            return False
        if self.skip:
            self.skip -= 1
            return False
        if not self.times:
            return False
        self.times -= 1
        return True


class Faults:
    """An ASGI application around another, which applies the rules it has been given."""

    def __init__(self, app: App) -> None:
        """Apply no rule yet."""
        self._app = app
        self._lock = threading.Lock()
        self._rules: list[Rule] = []

    def set(self, rules: Iterable[Rule]) -> None:
        """Take these rules instead of the ones before."""
        with self._lock:
            self._rules = list(rules)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request, or what a rule makes of it."""
        rule = self._rule(scope) if scope["type"] == "http" else None
        if rule is None:
            await self._app(scope, receive, send)
            return
        if rule.after and rule.delay:
            send = _late(send, rule.delay)
        else:
            await asyncio.sleep(rule.delay)
        instead = rule.close or rule.raw is not None or rule.status is not None
        if instead and rule.after:
            await self._app(scope, receive, _nowhere)
        if rule.close or rule.raw is not None:
            await _end(receive, (rule.raw or "").encode())
        elif rule.status is not None:
            await _say(send, rule.status, rule.headers, rule.body.encode())
        elif rule.cut is not None:
            await self._app(scope, receive, _cutting(receive, send, rule.cut))
        elif rule.change is not None:
            await self._app(scope, receive, _changing(send, rule.change))
        else:
            await self._app(scope, receive, send)

    def _rule(self, scope: Message) -> Rule | None:
        with self._lock:
            return next((rule for rule in self._rules if rule.meets(scope["method"], scope["path"])), None)


def _late(send: Send, seconds: float) -> Send:
    """Return a send that waits before the answer begins."""

    async def late(message: Message) -> None:
        if message["type"] == "http.response.start":
            await asyncio.sleep(seconds)
        await send(message)

    return late


async def _nowhere(_: Message) -> None:
    """Lose an answer."""


async def _say(send: Send, status: int, headers: dict[str, str], body: bytes) -> None:
    given = {"content-type": "application/json", "content-length": str(len(body))} | headers
    pairs = [(name.encode(), value.encode()) for name, value in given.items()]
    await send({"type": "http.response.start", "status": status, "headers": pairs})
    await send({"type": "http.response.body", "body": body})


async def _end(receive: Receive, data: bytes) -> None:
    """End the connection: with `data` as the last that is sent, or abruptly where there is none."""
    transport = receive.__self__.transport  # type: ignore[attr-defined]  # uvicorn's request cycle
    if data:
        transport.write(data)
        transport.close()
    else:
        transport.abort()


def _cutting(receive: Receive, send: Send, most: int) -> Send:
    """Return a send that ends the connection after `most` bytes of body; a shorter body arrives whole."""
    left = most
    is_cut = False

    async def cutting(message: Message) -> None:
        nonlocal left, is_cut
        body = bytes(message.get("body", b""))
        if message["type"] != "http.response.body" or len(body) < left:
            left -= len(body)
            await send(message)
        elif not is_cut:
            is_cut = True
            await send({"type": "http.response.body", "body": body[:left], "more_body": True})
            await asyncio.sleep(0.05)  # let what was sent arrive before the reset
            receive.__self__.transport.close()  # type: ignore[attr-defined]  # uvicorn's request cycle

    return cutting


def _changing(send: Send, changes: dict[str, Any]) -> Send:
    """Return a send that changes a JSON answer."""
    start: Message = {}
    parts: list[bytes] = []

    async def changing(message: Message) -> None:
        if message["type"] == "http.response.start":
            start.update(message)
            return
        parts.append(bytes(message.get("body", b"")))
        if message.get("more_body"):
            return
        document = json.loads(b"".join(parts)) | changes
        body = json.dumps({name: value for name, value in document.items() if value is not None}).encode()
        await _say(send, start["status"], {}, body)

    return changing
