"""The same work on several things at once, while the calling thread keeps the books and hears interrupts."""

from __future__ import annotations

import threading
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, TypeVar

from duckdb_mistral.runtime import interrupts
from duckdb_mistral.runtime.retry_policy import SLEEP_STEP_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

Thing = TypeVar("Thing")
Answer = TypeVar("Answer")


def together(
    things: Iterable[Thing],
    work: Callable[[Thing], Answer],
    keep: Callable[[Thing, Answer], object],
    *,
    threads: int,
    daemon: bool,
) -> None:
    """Call `work` with each of `things` on a few threads, and `keep` with what it returned on this one, at once.

    After a failure nothing new begins; what is under way is finished and kept, then the first failure is raised. An
    interrupt is raised at once: what is under way hears it too, and is waited for only where Python ends, unless the
    threads are daemons.
    """
    waiting = list(things)[::-1]
    ended: SimpleQueue[tuple[Thing, Answer | None, BaseException | None]] = SimpleQueue()
    heard = interrupts.begun()

    def run(thing: Thing) -> None:
        interrupts.begin(heard)
        try:
            ended.put((thing, work(thing), None))
        except BaseException as error:  # noqa: BLE001  raised on the calling thread
            ended.put((thing, None, error))

    under_way = 0
    failure: BaseException | None = None
    while under_way or (waiting and failure is None):
        if waiting and failure is None and under_way < threads:
            threading.Thread(target=run, args=(waiting.pop(),), daemon=daemon).start()
            under_way += 1
            continue
        thing, answer, error = _next(ended)
        under_way -= 1
        try:
            if error is not None:
                raise error
            keep(thing, answer)  # type: ignore[arg-type]  # an answer where there is no error
        except Exception as problem:  # noqa: BLE001  raised below
            failure = failure or problem
    if failure is not None:
        raise failure


def _next(ended: SimpleQueue[Answer]) -> Answer:
    while True:
        interrupts.check()
        try:
            return ended.get(timeout=SLEEP_STEP_SECONDS)
        except Empty:
            continue
