"""Random schedules of faults, from a seed that is printed: whatever comes, nothing is lost or paid twice."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import duckdb
import pytest
from faults.harness import CREATE, DOWNLOAD, LIST, POLL, UPLOAD, Story, bad_end, check_invariants, late_end
from faults.test_every_step import tell

from duckdb_mistral.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

#: How many schedules share one test.
BATCH = 10
WHERE = (CREATE, CREATE, UPLOAD, LIST, POLL, DOWNLOAD)
WHAT: tuple[dict[str, Any], ...] = (
    {"close": True},
    {"close": True, "after": True},
    {"status": 500},
    {"status": 502, "after": True},
    {"status": 503, "headers": {"retry-after": "3600"}},
    {"status": 429},
    {"status": 404},
    {"status": 200, "body": "<html>", "headers": {"content-type": "text/html"}},
    {"status": 200, "body": "{}", "after": True},
    {"cut": 20},
    {"delay": 1.3, "after": True},
)
#: One in so many schedules begins with a process that is killed.
KILLS = 10


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give each test its batch of seeds."""
    if "seeds" in metafunc.fixturenames:
        first, count = metafunc.config.getoption("--seed"), metafunc.config.getoption("--schedules")
        seeds = range(first, first + count)
        batches = [seeds[start : start + BATCH] for start in range(0, count, BATCH)]
        metafunc.parametrize("seeds", batches, ids=[f"seeds {batch[0]} to {batch[-1]}" for batch in batches])


def misbehave(emulator: Emulator, dice: random.Random) -> list[dict[str, Any]]:
    """Let up to four faults come, each at some request of its route."""
    rules = [
        dice.choice(WHERE) | dice.choice(WHAT) | {"skip": dice.randrange(3), "times": dice.randrange(1, 3)}
        for _ in range(dice.randrange(1, 5))
    ]
    if dice.randrange(2):
        rules.insert(0, late_end(dice))
    emulator.faults(*rules)
    return rules


def run(seed: int, directory: Path) -> None:
    """Run one schedule: faults come and go while the user repeats the statements, then all is well again."""
    dice = random.Random(seed)
    limits = dice.choice([{}, {"max_requests_per_job": 4}, {"max_requests_per_job": 4, "max_pending_requests": 8}])
    jobs = 3 if limits else 1
    with Emulator(directory / "server", job_seconds=dice.choice([0, 0.2])) as emulator:
        rules = misbehave(emulator, dice)
        if dice.randrange(3) == 0:  # told twice, a bad end is one, and what failed as a whole is sent anew
            rules.insert(0, bad_end(dice))
            emulator.faults(*rules)
        said = ""
        if dice.randrange(KILLS) == 0 and not limits:
            _, said = tell(emulator, directory / "home", f"*:{dice.randrange(5, 60)}")
        story = Story(emulator, directory / "home", settings={"deadline_seconds": 1} | limits, said=[said])
        try:
            for _ in range(dice.randrange(1, 4)):
                steps: list[Callable[[], object]] = [story.submit, story.wait, story.results]
                try:
                    dice.choice(steps)()
                except duckdb.Error as error:
                    assert "Traceback" not in str(error)  # noqa: PT017  every error is a sentence
                if dice.randrange(3) == 0:
                    rules += misbehave(emulator, dice)
            emulator.faults()
            assert {row["outcome"] for row in story.go_on()} == {"ok"}
            check_invariants(story, jobs=jobs)
        except BaseException as error:
            error.add_note(f"--seed {seed} --schedules 1 runs it again; limits {limits}, rules {rules}")
            raise
        finally:
            story.close()


@pytest.mark.fault("all")
@pytest.mark.timeout(600)
def test_schedules(seeds: range, tmp_path: Path) -> None:
    """However the faults fall, each row is paid for once and comes back once."""
    for seed in seeds:
        run(seed, tmp_path / str(seed))
