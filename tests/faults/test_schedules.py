"""Random schedules of faults, from a seed that is printed: whatever comes, nothing is lost or paid twice."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import duckdb
import pytest
from faults.harness import CREATE, DOWNLOAD, LIST, POLL, UPLOAD, Story, bad_end, check_invariants, late_end
from faults.test_every_step import STORY, tell
from forking import Stopped, fork_to_stop
from support import clean_environment, environment_of

from duckdb_mistral.emulator import Emulator
from duckdb_mistral.runtime.failpoints import VARIABLE
from duckdb_mistral.state.home import Home
from duckdb_mistral.state.ledger import Ledger

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

#: How many schedules share one test.
BATCH = 5
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
DAY = 24 * 3600
#: What else may happen, of which one kind comes in a schedule. A list that lags for longer than what was sent is looked
#: for is beyond what can be promised.
WEATHER: dict[str, tuple[dict[str, Any], ...]] = {
    "plain": (),
    "late": tuple(CREATE | {"delay": delay} for delay in (1.2, 1.5, 1.8)),
    "refused": tuple(
        CREATE | {"status": status, "after": True} for status in (307, 400, 403, 404, 409, 422, 425, 429, 499)
    ),
    "lagging": tuple(CREATE | {"status": status, "after": True} for status in (307, 400, 404, 409, 422, 429, 502)),
    "lists": (
        LIST | {"change": {"data": []}},
        LIST | {"change": {"data": [], "total": None}},
        LIST | {"query": {"page": "0"}},
        LIST | {"query": {"page": "0"}, "change": {"total": None}},
        LIST | {"query": {"page_size": "1"}, "change": {"total": None}, "times": 50},
        LIST | {"jobs": {"metadata": None}, "times": 50},
    ),
    "clocks": (
        {"method": ".*", "path": ".*", "ahead": 3 * DAY, "times": 20},
        {"method": ".*", "path": ".*", "ahead": -3 * DAY, "times": 20},
        {"method": ".*", "path": ".*", "ahead": 3600, "times": 5},
        LIST | {"jobs": {"created_at": 1_700_000_000}, "times": 20},
        LIST | {"jobs": {"created_at": None}, "times": 20},
    ),
    "restored": (),
    "stopped": (),
}
#: One in so many schedules begins with a process that is killed.
KILLS = 4
LISTS_WAIT = 5
#: A list that lags does so for this long, and what was sent is looked for a little longer.
LAG, LAG_WAIT = 1.0, 2.5
#: How long a user goes on, in seconds: more schedules are run at once than there are cores.
PATIENCE = 120.0
#: Where a process is stopped: nowhere that holds the ledger, for which all others wait.
STOPS = (
    *("after-spool", "after-intent", "before-upload", "after-upload", "before-create", "after-create", "after-record"),
    *(f"before-request:{number}" for number in range(1, 8)),
)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give each test its batch of seeds."""
    if "seeds" in metafunc.fixturenames:
        first, count = metafunc.config.getoption("--seed"), metafunc.config.getoption("--schedules")
        seeds = range(first, first + count)
        batches = [seeds[start : start + BATCH] for start in range(0, count, BATCH)]
        metafunc.parametrize("seeds", batches, ids=[f"seeds {batch[0]} to {batch[-1]}" for batch in batches])


def drawn(dice: random.Random, weather: str) -> list[dict[str, Any]]:
    """Return rules for up to five faults, each at some request of its route."""
    rules = [
        dice.choice(WHERE) | dice.choice(WHAT) | {"skip": dice.randrange(3), "times": dice.randrange(1, 3)}
        for _ in range(dice.randrange(1, 5))
    ]
    if WEATHER[weather]:
        rules.insert(0, {"skip": dice.randrange(4)} | dice.choice(WEATHER[weather]))
    if dice.randrange(2):
        rules.insert(0, late_end(dice))
    return rules


@dataclass
class Schedule:
    """One run: a user who repeats the statements while faults come and go."""

    seed: int
    directory: Path
    counts: Counter[str] = field(default_factory=Counter)
    rules: list[dict[str, Any]] = field(default_factory=list)
    backup: bool = False
    stopped: Stopped | None = None

    def __post_init__(self) -> None:
        """Throw the dice."""
        self.dice = random.Random(self.seed)
        limits = [{}, {"max_requests_per_job": 4}, {"max_requests_per_job": 4, "max_pending_requests": 8}]
        self.limits: dict[str, Any] = self.dice.choice(limits)
        self.weather = self.dice.choice(list(WEATHER))
        self.home = self.directory / "home"
        # One that is woken waits until what it lost has been looked for so long.
        waits = {"lists": LISTS_WAIT, "stopped": LISTS_WAIT, "lagging": LAG_WAIT}
        wait = {"reconcile_seconds": waits[self.weather]} if self.weather in waits else {}
        self.settings = {"deadline_seconds": 1} | wait | self.limits

    def misbehave(self, emulator: Emulator) -> None:
        """Let up to five faults come, each at some request of its route."""
        dice = self.dice
        rules = drawn(dice, self.weather)
        if self.weather == "lagging":
            rules.append(LIST | {"lag": LAG, "times": 1_000})
        emulator.faults(*rules)
        self.rules += rules

    def begin(self, emulator: Emulator) -> str:
        """Let another process go first, which is killed, or stopped and not heard of; return what it said."""
        if self.weather == "stopped":
            self.counts["stops"] += 1
            environment = {f"DUCKDB_MISTRAL_{name.upper()}": str(value) for name, value in self.settings.items()}
            step = f"stop:{self.dice.choice(STOPS)}"
            environment |= clean_environment() | environment_of(emulator, self.home) | {VARIABLE: step}
            self.stopped = fork_to_stop(STORY, environment)
            shutil.rmtree(self.home / "locks", ignore_errors=True)
        elif self.dice.randrange(KILLS) == 0 and not self.limits:
            self.counts["kills"] += 1
            return tell(emulator, self.home, f"*:{self.dice.randrange(5, 60)}")[1]
        return ""

    def save(self, story: Story) -> Story:
        """Make a backup of the home once, when the submission is recorded."""
        if self.weather == "restored" and not self.backup and Ledger(Home(self.home)).submissions():
            story.close()
            shutil.copytree(self.home, self.directory / "backup")
            self.backup = True
            story = self.story(story.emulator, story.said)
        return story

    def put_back(self, story: Story) -> Story:
        """Put the backup in place of the home, or its ledger alone."""
        if not self.backup:
            return story
        self.counts["restored"] += 1
        story.close()
        if self.dice.randrange(2):
            shutil.rmtree(self.home)
            shutil.copytree(self.directory / "backup", self.home)
        else:
            for path in self.home.glob("ledger.sqlite*"):
                path.unlink()
            for path in (self.directory / "backup").glob("ledger.sqlite*"):
                shutil.copy(path, self.home)
        return self.story(story.emulator, story.said)

    def story(self, emulator: Emulator, said: list[str]) -> Story:
        """Return a user with a new connection."""
        return Story(emulator, self.home, settings=self.settings, said=said)

    def wake(self) -> None:
        """Let a stopped process go on to its end."""
        if self.stopped is not None:
            stopped, self.stopped = self.stopped, None
            said = stopped.go_on()
            assert "Traceback" not in said, said

    def run(self) -> None:
        """Run it, and check what must be true at the end."""
        with Emulator(self.directory / "server", job_seconds=self.dice.choice([0, 0.2])) as emulator:
            if self.weather != "stopped" or self.limits:
                self.misbehave(emulator)
            if self.dice.randrange(3) == 0:  # told twice, a bad end is one, and what failed as a whole is sent anew
                self.rules.insert(0, bad_end(self.dice))
                emulator.faults(*self.rules)
            story = self.story(emulator, [self.begin(emulator)])
            try:
                for _ in range(self.dice.randrange(1, 5)):
                    steps: list[Callable[[], object]] = [story.submit, story.submit, story.wait, story.results]
                    try:
                        self.dice.choice(steps)()
                    except duckdb.Error as error:
                        assert "Traceback" not in str(error)  # noqa: PT017  every error is a sentence
                    story = self.save(story)
                    if self.dice.randrange(3) == 0:
                        self.misbehave(emulator)
                    if self.dice.randrange(3) == 0:
                        self.wake()
                emulator.faults(*(rule for rule in self.rules if "lag" in rule))
                if self.dice.randrange(2):
                    story.go_on(PATIENCE)
                story = self.put_back(story)
                found = story.go_on(PATIENCE)
                self.wake()
                assert {row["outcome"] for row in found} == {"ok"}
                emulator.faults()  # the checks read the list too
                check_invariants(story, jobs=3 if self.limits else 1)
                self.count(story, found)
            except BaseException as error:
                error.add_note(
                    f"--seed {self.seed} --schedules 1 runs it again; {self.weather}, limits {self.limits}, "
                    f"rules {self.rules}"
                )
                raise
            finally:
                if self.stopped is not None:
                    self.stopped.kill()
                story.close()

    def count(self, story: Story, found: list[dict[str, Any]]) -> None:
        """Count what came and what was checked."""
        witness = story.emulator.witness()
        self.counts["schedules"] += 1
        self.counts["rows checked"] += len(found)
        self.counts["lost creates"] += sum("is not known" in said for said in story.said)
        self.counts["creates without a job"] += witness["creates_received"] - witness["jobs_stored"]
        self.counts["paid twice"] += witness["rows_accepted_more_than_once"]


@pytest.mark.fault("all")
@pytest.mark.timeout(1200)
def test_schedules(seeds: range, tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    """However the faults fall, each row is paid for once and comes back once."""
    counts: Counter[str] = Counter()
    for seed in seeds:
        Schedule(seed, tmp_path / str(seed), counts).run()
    record_property("schedules", dict(counts))
