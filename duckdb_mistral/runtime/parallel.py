"""The same work on several things at once, while the calling thread keeps the results and handles interrupts."""

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
    """Call `work` with each of `things` on a few threads, and `keep` with each result at once, on this thread.

    After a failure nothing new starts; work under way is finished and kept, and then the first failure is raised. An
    interrupt is raised at once. It also reaches the work under way, which is waited for only when Python exits, unless
    the threads are daemons.
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
            keep(thing, answer)  # type: ignore[arg-type]  # without an error there is an answer
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
