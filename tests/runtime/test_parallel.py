"""Several things at once: bounded, kept on the calling thread, stopped by a failure or an interrupt."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from duckdb_mistral.runtime import interrupts
from duckdb_mistral.runtime.parallel import together
from duckdb_mistral.runtime.retry_policy import Retry

if TYPE_CHECKING:
    from collections.abc import Callable

#: A thread that is not where the test waits for it by then has failed the test.
SECONDS = 30


def nothing(_: object, __: object) -> None:
    """Keep nothing."""


def test_each_once_and_kept_here() -> None:
    """Every thing is worked on once, and what comes of it is kept on the calling thread."""
    kept: dict[int, int] = {}
    threads: set[int] = set()

    def keep(thing: int, answer: int) -> None:
        assert thing not in kept
        kept[thing] = answer
        threads.add(threading.get_ident())

    together(range(20), lambda thing: thing * thing, keep, threads=3, daemon=True)
    assert kept == {number: number * number for number in range(20)}
    assert threads == {threading.get_ident()}


def test_nothing_to_do() -> None:
    """Without anything to work on it ends at once."""
    together([], str, nothing, threads=3, daemon=True)


def test_several_at_once_and_no_more() -> None:
    """As many things as there are threads are under way at once, and never more."""
    meeting = threading.Barrier(3)
    lock = threading.Lock()
    under_way = most = 0

    def work(_: int) -> None:
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        meeting.wait(SECONDS)
        with lock:
            under_way -= 1

    together(range(9), work, nothing, threads=3, daemon=True)
    assert most == 3


def failing_work(begun: list[int]) -> Callable[[int], int]:
    """Return work of which the second thing fails, while the first and the third are under way."""
    meeting = threading.Barrier(3)
    failed = threading.Event()

    def work(thing: int) -> int:
        begun.append(thing)
        meeting.wait(SECONDS)
        if thing == 1:
            failed.set()
            raise ValueError("the second")
        assert failed.wait(SECONDS)
        return thing

    return work


def test_failure_lets_finish_what_is_under_way() -> None:
    """After a failure nothing new begins, what is under way is kept, and the failure is raised."""
    begun: list[int] = []
    kept: list[int] = []
    with pytest.raises(ValueError, match="the second"):
        together(range(9), failing_work(begun), lambda thing, _: kept.append(thing), threads=3, daemon=True)
    assert sorted(begun) == [0, 1, 2]
    assert sorted(kept) == [0, 2]


def test_failure_to_keep_is_a_failure() -> None:
    """What cannot be kept is raised, and nothing new begins."""
    begun: list[int] = []

    def keep(_: int, __: object) -> None:
        raise OSError("full")

    with pytest.raises(OSError, match="full"):
        together(range(9), begun.append, keep, threads=2, daemon=True)
    assert 1 <= len(begun) <= 2


def test_interrupt_is_heard_on_all_threads() -> None:
    """An interrupt ends the call on the calling thread and what is under way, whichever hears it first."""
    began = threading.Barrier(3)
    ended = threading.Barrier(3)

    def work(_: int) -> None:
        began.wait(SECONDS)
        try:
            Retry().pause(SECONDS)
        except KeyboardInterrupt:
            ended.wait(SECONDS)
            raise

    def interrupt() -> None:
        began.wait(SECONDS)
        interrupts.interrupt()

    interrupts.begin()
    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        together(range(9), work, nothing, threads=2, daemon=True)
    ended.wait(SECONDS)


def test_interrupt_of_an_earlier_call() -> None:
    """An interrupt before the call began ends nothing, on any thread."""
    interrupts.interrupt()
    interrupts.begin()
    kept: list[int] = []
    together(range(3), lambda _: Retry().pause(0), lambda thing, _: kept.append(thing), threads=2, daemon=True)
    assert sorted(kept) == [0, 1, 2]
