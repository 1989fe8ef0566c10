"""Misbehaving on request: rules that change what happens to requests, applied around the whole server."""

from __future__ import annotations

import asyncio
import json
import re
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any
from urllib.parse import parse_qsl, urlencode

from duckdb_mistral.emulator.door import LONGEST_PATH

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]


@dataclass(kw_only=True)
class Rule:
    """What happens to the requests that it matches; the parts can be combined.

    A rule matches requests whose method and whole path match the regular expressions. It skips the first `skip` of
    them and acts on the next `times`.
    """

    method: str
    path: str
    skip: int = 0
    times: int = 1
    #: Wait this many seconds first; with `after`, between the work and the answer.
    delay: float = 0.0
    #: Answer with this status instead; the work is not done, except with `after`.
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    body: str = ""
    #: Do the work first: what was created stays created, only the answer is different.
    after: bool = False
    #: End the connection without an answer; with `after`, once the work is done.
    close: bool = False
    #: Send only this many bytes of the answer's body, then end the connection.
    cut: int | None = None
    #: Send these bytes as the whole HTTP answer and end the connection cleanly.
    raw: str | None = None
    #: Put these members into the JSON answer; a null removes a member.
    change: dict[str, Any] | None = None
    #: Put these members into each job of the answer, whether a list or a single job; a null removes a member.
    jobs: dict[str, Any] | None = None
    #: Use these query parameters instead of those that were sent.
    query: dict[str, str] | None = None
    #: Leave out of a list, and out of its total, what was created less than this many seconds ago.
    lag: float = 0.0
    #: Let the answer's clock be this many seconds ahead.
    ahead: float = 0.0

    def meets(self, method: str, path: str) -> bool:
        """Count a request that the rule matches; tell whether it acts on this one."""
        # No path of the API is this long, and the longer a path, the longer its matching takes.
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
    """An ASGI application that wraps another and applies the rules it has been given."""

    def __init__(self, app: App) -> None:
        """Start without rules."""
        self._app = app
        self._lock = threading.Lock()
        self._rules: list[Rule] = []

    def set(self, rules: Iterable[Rule]) -> None:
        """Replace the rules with these."""
        with self._lock:
            self._rules = list(rules)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request, as changed by a rule if one matches."""
        rule = self._rule(scope) if scope["type"] == "http" else None
        if scope["type"] == "http":
            send = _dated(send, rule.ahead if rule is not None else 0.0)
        if rule is None:
            await self._app(scope, receive, send)
            return
        if rule.query is not None:
            asked = [pair for pair in parse_qsl(scope["query_string"].decode()) if pair[0] not in rule.query]
            scope["query_string"] = urlencode([*asked, *rule.query.items()]).encode()
        if rule.after and rule.delay:
            send = _late(send, rule.delay)
        elif rule.delay:
            # The work is done late, even if the client has left by then.
            receive = await _received(receive, rule.delay)
        instead = rule.close or rule.raw is not None or rule.status is not None
        if instead and rule.after:
            await self._app(scope, receive, _nowhere)
        if rule.close or rule.raw is not None:
            await _end(receive, (rule.raw or "").encode())
        elif rule.status is not None:
            await _say(send, rule.status, rule.headers, rule.body.encode())
        elif rule.cut is not None:
            await self._app(scope, receive, _cutting(receive, send, rule.cut))
        elif rule.change is not None or rule.jobs is not None or rule.lag:
            await self._app(scope, receive, _changing(send, rule))
        else:
            await self._app(scope, receive, send)

    def _rule(self, scope: Message) -> Rule | None:
        with self._lock:
            return next((rule for rule in self._rules if rule.meets(scope["method"], scope["path"])), None)


async def _received(receive: Receive, seconds: float) -> Receive:
    """Read a whole request, wait, and return a receive that replays it."""
    messages = [await receive()]
    while messages[-1].get("more_body"):
        messages.append(await receive())
    await asyncio.sleep(seconds)

    class Told:
        transport = receive.__self__.transport  # type: ignore[attr-defined]  # uvicorn's request cycle

        async def again(self) -> Message:
            return messages.pop(0) if messages else await receive()

    return Told().again


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
    """End the connection: after sending `data`, or abruptly if there is none."""
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
            await asyncio.sleep(0.05)  # let the data arrive before the reset
            receive.__self__.transport.close()  # type: ignore[attr-defined]  # uvicorn's request cycle

    return cutting


def _dated(send: Send, ahead: float) -> Send:
    """Return a send that adds the date, `ahead` seconds ahead of the clock."""

    async def dated(message: Message) -> None:
        if message["type"] == "http.response.start":
            told = formatdate(time.time() + ahead, usegmt=True)
            message["headers"] = [*message.get("headers", ()), (b"date", told.encode())]
        await send(message)

    return dated


def _changing(send: Send, rule: Rule) -> Send:
    """Return a send that changes a JSON answer, and each job in it, as a rule says."""
    changes, of_jobs = rule.change or {}, rule.jobs or {}
    start: Message = {}
    parts: list[bytes] = []

    async def changing(message: Message) -> None:
        if message["type"] == "http.response.start":
            start.update(message)
            return
        parts.append(bytes(message.get("body", b"")))
        if message.get("more_body"):
            return
        document: dict[str, Any] = json.loads(b"".join(parts))
        if rule.lag:
            document = _lagging(document, time.time() - rule.lag)
        document |= changes
        if isinstance(document.get("data"), list):
            document["data"] = [_changed(job, of_jobs) for job in document["data"]]
        else:
            document.update(of_jobs)
        body = json.dumps(_changed(document, {})).encode()
        await _say(send, start["status"], {}, body)

    return changing


def _lagging(document: dict[str, Any], until: float) -> dict[str, Any]:
    """Return a list without what was created after a moment, by the server's clock."""
    entries = document.get("data", [])
    there = [entry for entry in entries if entry["created_at"] <= until]
    return document | {"data": there, "total": document.get("total", len(entries)) - len(entries) + len(there)}


def _changed(document: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in (document | changes).items() if value is not None}
