"""The retry policy, on a clock that only sleeping moves."""

from __future__ import annotations

import pytest

from duckdb_mistral.errors import ApiError, AuthenticationError, LimitError, NotFoundError, UnreachableError
from duckdb_mistral.runtime.retry_policy import SLEEP_STEP_SECONDS, Retry, is_passing


class Clock:
    """A clock that only sleeping moves, and that remembers the sleeps."""

    def __init__(self) -> None:
        self.now = 100.0
        self.sleeps: list[float] = []

    def time(self) -> float:
        """Return the time."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.sleeps.append(seconds)
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    """Return a clock at rest."""
    return Clock()


def retry_on(clock: Clock, **options: float) -> Retry:
    """Return a policy on a clock."""
    return Retry(clock=clock.time, sleep=clock.sleep, **options)


class Calls:
    """A call that fails with each of some errors in turn, the last one for ever, or answers where there is none."""

    def __init__(self, *errors: ApiError | None) -> None:
        self.count = 0
        self._errors = errors

    def __call__(self) -> str:
        """Fail or answer."""
        error = self._errors[min(self.count, len(self._errors) - 1)]
        self.count += 1
        if error is not None:
            raise error
        return "answer"


PASSING = UnreachableError("no answer")


def test_first_answer(clock: Clock) -> None:
    """What is answered at once is asked once, without a pause."""
    calls = Calls(None)
    assert retry_on(clock).read(calls) == "answer"
    assert (calls.count, clock.sleeps) == (1, [])


def test_passing_errors_are_repeated(clock: Clock) -> None:
    """Passing errors are repeated, after pauses that grow."""
    calls = Calls(PASSING, ApiError("", status_code=503), LimitError("", status_code=429), None)
    assert retry_on(clock, first_pause_seconds=1).read(calls) == "answer"
    assert calls.count == 4
    assert 0.75 * 7 <= clock.now - 100 <= 1.25 * 7


@pytest.mark.parametrize(
    ("error", "passing"),
    [
        (UnreachableError(), True),
        (UnreachableError(sent=False), True),
        (LimitError(status_code=429), True),
        (ApiError(status_code=500), True),
        (ApiError(status_code=504), True),
        (ApiError(status_code=400), False),
        (ApiError(status_code=302), False),
        (ApiError(), False),
        (AuthenticationError(status_code=401), False),
        (NotFoundError(status_code=404), False),
    ],
)
def test_is_passing(clock: Clock, error: ApiError, passing: bool) -> None:
    """Only what a later try can mend is repeated."""
    assert is_passing(error) is passing
    calls = Calls(error, None)
    if passing:
        assert retry_on(clock).read(calls) == "answer"
    else:
        with pytest.raises(type(error)):
            retry_on(clock).read(calls)
        assert (calls.count, clock.sleeps) == (1, [])


def test_budget(clock: Clock) -> None:
    """The last error comes within the budget, and no pause leads past it."""
    with pytest.raises(UnreachableError, match="no answer"):
        retry_on(clock, budget_seconds=10).read(Calls(PASSING))
    assert clock.now - 100 <= 10


def test_no_budget(clock: Clock) -> None:
    """Without a budget there is one try."""
    calls = Calls(PASSING)
    with pytest.raises(UnreachableError):
        retry_on(clock, budget_seconds=0).read(calls)
    assert (calls.count, clock.sleeps) == (1, [])


def test_within(clock: Clock) -> None:
    """Within a limit reads are repeated no longer than that, all in all, and each is tried once at least."""
    retry = retry_on(clock, budget_seconds=10)
    with retry.within(3):
        for tries in (range(2, 10), range(1, 2)):
            calls = Calls(PASSING)
            with pytest.raises(UnreachableError), retry.within(5):
                retry.read(calls)
            assert calls.count in tries
            clock.now = max(clock.now, 103.0)
        assert retry.left == 0
    assert clock.now == 103
    assert retry.left == float("inf")
    with pytest.raises(UnreachableError):
        retry.read(Calls(PASSING))
    assert 5 < clock.now - 103 <= 10


@pytest.mark.parametrize(("asked", "slept"), [(3.0, 3.0), (86_400.0, 20.0), (float("inf"), 20.0)])
def test_retry_after(clock: Clock, asked: float, slept: float) -> None:
    """The server's own pause is obeyed, up to the longest of ours."""
    retry_on(clock).read(Calls(LimitError(status_code=429, retry_after=asked), None))
    assert clock.now - 100 == pytest.approx(slept)


@pytest.mark.parametrize("asked", [0.0, -5.0, 0.01, float("nan")])
def test_retry_after_that_is_shorter_than_our_pause(clock: Clock, asked: float) -> None:
    """A server that asks for no pause is asked as rarely as one that says nothing."""
    retry_on(clock, first_pause_seconds=1).read(Calls(LimitError(status_code=429, retry_after=asked), None))
    assert 0.75 <= clock.now - 100 <= 1.25


def test_only_what_a_limit_refused_is_repeated(clock: Clock) -> None:
    """What may have come to something is not repeated where only refusals are."""
    calls = Calls(LimitError(status_code=429), LimitError(status_code=429), None)
    assert retry_on(clock).refused(calls) == "answer"
    assert calls.count == 3
    for error in (PASSING, ApiError("", status_code=503)):
        calls = Calls(error, None)
        with pytest.raises(type(error)):
            retry_on(clock).refused(calls)
        assert calls.count == 1


def test_other_errors_go_through(clock: Clock) -> None:
    """What is no error of the API is not repeated."""

    def broken() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        retry_on(clock).read(broken)
    assert clock.sleeps == []


def test_pause_sleeps_in_short_steps(clock: Clock) -> None:
    """A pause is made of steps that are short enough for an interrupt to be felt, and is as long as asked."""
    retry_on(clock).pause(1.05)
    assert max(clock.sleeps) <= SLEEP_STEP_SECONDS
    assert clock.now - 100 == pytest.approx(1.05)
    clock.sleeps.clear()
    retry_on(clock).pause(0)
    retry_on(clock).pause(-1)
    assert clock.sleeps == []
