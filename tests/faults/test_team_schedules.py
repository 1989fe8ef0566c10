"""Random schedules of a team: machines with one ledger and one store die, sleep and lose disks; all is paid once.

The seed is printed. What happens in the middle of a call happens while its process is stopped at a step.
"""

from __future__ import annotations

import atexit
import functools
import os
import random
import shutil
import signal
import time
from collections import Counter
from contextlib import ExitStack, closing, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import duckdb
import pytest
from faults.harness import (
    LIST,
    Story,
    assert_no_key,
    bad_end,
    check_invariants,
)
from faults.test_every_step import KILLED, STORY
from faults.test_schedules import LAG, LAG_WAIT, LISTS_WAIT, PATIENCE, STOPS, WEATHER, drawn
from forking import Stopped, fork_to_stop
from object_server import ObjectServer, serving
from postgres import Postgres, Relay, is_there
from pyarrow import fs
from support import KEY, clean_environment, environment_of, run_forked, settings_of

from duckdb_mistral.batches.context import Context
from duckdb_mistral.emulator import Emulator
from duckdb_mistral.maintenance.clean import Asked, clean
from duckdb_mistral.runtime.failpoints import VARIABLE
from duckdb_mistral.settings import Settings
from duckdb_mistral.state import leases, store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(
    not is_there() or not hasattr(signal, "SIGSTOP"),
    reason="no PostgreSQL is installed here, or nothing can be stopped",
)

#: How many schedules share one test.
BATCH = 2
#: How long a lock outlives its holder here.
LEASE = 1.0
#: How long a server of objects that says nothing is waited for here, once.
QUIET = 5
BRIEF = (
    "from duckdb_mistral.state import leases, postgres, store\n"
    f"leases.LEASE_SECONDS = {LEASE}\npostgres.IDLE_SECONDS = {LEASE:.0f}\n"
    f"store.QUIET_SECONDS = {QUIET}\nstore.ATTEMPTS = 1\n"
)
PASSWORD = "canary-password"
#: All but those that `test_schedules` alone can make.
TEAM_WEATHER = tuple(name for name in WEATHER if name not in ("restored", "stopped"))
#: A create is looked for a little longer than it may take to leave and to be answered.
WAIT = 2.5
#: How many steps there are on the whole way: of one job, and of three.
STEPS = (60, 135)
#: Each schedule begins with one of these, as long as nothing is paid.
FIRST = ("kill", "stop", "during", "together", "lose_answer")
#: What may happen next; a call of some machine is the most frequent.
EVENTS = (
    *("call", "call", "call", "call", "call", "kill", "kill", "stop", "stop", "during", "during", "lose_answer"),
    *("lose_answer", "cut", "restart", "store", "together", "vanish", "wake", "wake"),
)
#: What may happen while a process is in the middle of a call.
MEANWHILE = ("cut", "restart", "store", "nothing")
#: Statements of which PostgreSQL's answer may be lost, by what is in them.
STATEMENTS = (
    *("COMMIT", "UPDATE jobs SET step", "UPDATE parts SET file_id", "UPDATE jobs SET results"),
    *("INSERT INTO locks", "UPDATE locks", "DELETE FROM locks", "INSERT INTO submissions", "SELECT"),
)
#: Where a process stops that has taken no lock yet.
BEGUN = "stop:before-spool-write"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give each test its batch of seeds."""
    if "seeds" in metafunc.fixturenames:
        first, count = metafunc.config.getoption("--seed"), metafunc.config.getoption("--team-schedules")
        seeds = range(first, first + count)
        batches = [seeds[start : start + BATCH] for start in range(0, count, BATCH)]
        metafunc.parametrize("seeds", batches, ids=[f"seeds {batch[0]} to {batch[-1]}" for batch in batches])


@pytest.fixture(autouse=True)
def _brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait less for the locks of who died, and for a server that says nothing."""
    monkeypatch.setattr(leases, "LEASE_SECONDS", LEASE)
    monkeypatch.setattr(store, "QUIET_SECONDS", QUIET)
    monkeypatch.setattr(store, "ATTEMPTS", 1)
    for name, value in own_objects().environment.items():
        monkeypatch.setenv(name, value)


@functools.cache
def own_server() -> Postgres:
    """Return a server that tests may end, since it keeps what it has confirmed and only such tests use it."""
    server = Postgres("synchronous_commit=on")
    atexit.register(server.remove)
    return server


@functools.cache
def own_objects() -> ObjectServer:
    """Return a server of the S3 API that tests may let be silent, since only such tests use it."""
    stack = ExitStack()
    atexit.register(stack.close)
    return stack.enter_context(serving())


@functools.cache
def way() -> Relay:
    """Return the way to that server, on which answers are lost."""
    return Relay(own_server().port)


@dataclass
class TeamSchedule:
    """One run: machines on which the same statements are repeated while they, and what they share, fail."""

    seed: int
    directory: Path
    counts: Counter[str]
    rules: list[dict[str, Any]] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    is_bad: bool = False
    #: The users of the machines, and the processes that are stopped on them.
    users: dict[int, Story] = field(default_factory=dict)
    stopped: dict[int, tuple[Stopped, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Throw the dice."""
        self.dice = random.Random(self.seed)
        self.machines = self.dice.choice([2, 2, 3, 3, 4, 5, 6])
        self.limits: dict[str, Any] = self.dice.choice(
            [{}, {"max_requests_per_job": 4}, {"max_requests_per_job": 4, "max_pending_requests": 8}]
        )
        self.weather = self.dice.choice(TEAM_WEATHER)
        self.arguments = self.dice.choice(["", "", ", reuse := 'requests'"])
        self.story = BRIEF + STORY.replace("submit('staging'", f"submit('staging'{self.arguments}")
        waits = {"lists": LISTS_WAIT, "lagging": LAG_WAIT}
        self.store = self.directory / "store"
        self.store.mkdir(parents=True)
        self.bucket = own_objects().bucket() if self.dice.randrange(8) == 0 else None
        self.schema = own_server().new_url().rpartition("%3D")[2]
        address = own_server().url(self.schema).replace(f":{own_server().port}/", f":{way().port}/")
        self.ledger = address.replace("postgres@", f"postgres:{PASSWORD}@")
        self.settings = self.limits | {
            "deadline_seconds": 1,
            "reconcile_seconds": waits.get(self.weather, WAIT),
            "ledger": self.ledger,
            "store": f"file://{self.store}" if self.bucket is None else f"s3://{self.bucket}/team",
        }

    # The machines

    def home(self, machine: int) -> Path:
        """Return the home of a machine."""
        return self.directory / f"machine-{machine}"

    def free(self) -> list[int]:
        """Return the machines on which no process is stopped: on its own machine it is waited for."""
        return [machine for machine in range(self.machines) if machine not in self.stopped]

    def user(self, machine: int) -> Story:
        """Return the user of a machine, who has one connection all the time."""
        if machine not in self.users:
            self.users[machine] = Story(
                self.emulator, self.home(machine), settings=self.settings, arguments=self.arguments, said=self.said
            )
        return self.users[machine]

    def environment(self, machine: int, step: str) -> dict[str, str]:
        """Return the environment of a process on a machine."""
        told = {f"DUCKDB_MISTRAL_{name.upper()}": str(value) for name, value in self.settings.items()}
        here = environment_of(self.emulator, self.home(machine)) | own_objects().environment
        return clean_environment() | here | told | {VARIABLE: step}

    def heard(self, said: str) -> None:
        """Note what a process said, which is a sentence."""
        assert "Traceback" not in said, said
        self.said.append(said)

    # What happens

    def call(self) -> None:
        """Let somebody run a statement."""
        user = self.user(self.dice.choice(self.free()))
        steps: list[Callable[[], object]] = [user.submit, user.submit, user.wait, user.results]
        try:
            self.dice.choice(steps)()
        except duckdb.Error as error:
            self.heard(str(error))

    def kill(self) -> None:
        """Let a process be killed at some step; its disk is gone with its machine, or is still there."""
        machine = self.dice.choice(self.free())
        step = self.dice.choice([f"*:{self.dice.randrange(1, STEPS[bool(self.limits)])}", *STOPS])
        self.told[-1] += f" {machine} {step}"
        child = run_forked(self.story, self.environment(machine, step))
        self.heard(child.stderr)
        assert child.returncode in (0, 1, KILLED), child.returncode
        self.counts["kills"] += child.returncode == KILLED
        if self.dice.randrange(2):
            self.lose(machine)

    def vanish(self) -> None:
        """Let all or some of what a machine has under its home vanish between two calls."""
        machine = self.dice.choice(self.free())
        if self.dice.randrange(2):
            self.lose(machine)
            return
        for name in ("spool", "results", "requests"):
            if self.dice.randrange(2):
                shutil.rmtree(self.home(machine) / name, ignore_errors=True)

    def lose(self, machine: int) -> None:
        """Remove the disk of a machine."""
        self.told[-1] += f", disk {machine} lost"
        self.counts["disks lost"] += self.home(machine).exists()
        shutil.rmtree(self.home(machine), ignore_errors=True)

    def stop(self) -> None:
        """Let a process be stopped for longer than its locks live, while the others go on."""
        if len(self.free()) == 1:
            return
        machine = self.dice.choice(self.free())
        step = self.dice.choice([f"*:{self.dice.randrange(1, STEPS[bool(self.limits)])}", *STOPS])
        self.told[-1] += f" {machine} {step}"
        stopped = fork_to_stop(self.story, self.environment(machine, f"stop:{step}"))
        if stopped is not None:
            self.counts["stops"] += 1
            self.stopped[machine] = (stopped, time.monotonic())

    def wake(self) -> None:
        """Let some that were stopped go on at once, when their locks have expired."""
        woken = self.dice.sample(list(self.stopped), self.dice.randrange(len(self.stopped)) + 1) if self.stopped else []
        self.told[-1] += f" {woken}"
        for machine in woken:
            time.sleep(max(0.0, self.stopped[machine][1] + LEASE * 1.2 - time.monotonic()))
        for machine in woken:
            os.kill(self.stopped[machine][0].pid, signal.SIGCONT)
        for machine in woken:
            self.heard(self.stopped.pop(machine)[0].go_on())

    def together(self) -> None:
        """Let two machines submit at the same moment, each in a process of its own."""
        pair = self.dice.sample(self.free(), min(2, len(self.free())))
        begun = [fork_to_stop(self.story, self.environment(machine, BEGUN)) for machine in pair]
        here = [one for one in begun if one is not None]
        for one in here:
            os.kill(one.pid, signal.SIGCONT)
        for one in here:
            self.heard(one.go_on())
        self.counts["together"] += len(here) > 1

    def during(self) -> None:
        """Let what all share fail while a process is in the middle of a call."""
        machine, step = self.dice.choice(self.free()), self.dice.randrange(1, STEPS[bool(self.limits)])
        what = self.dice.choice(MEANWHILE)
        self.told[-1] += f" {machine} *:{step} {what}"
        stopped = fork_to_stop(self.story, self.environment(machine, f"stop:*:{step}"))
        if stopped is None:
            return
        if self.dice.randrange(4) == 0:
            time.sleep(LEASE * 1.2)
        with self.unusable() if what == "store" else nullcontext():
            if what in ("cut", "restart"):
                getattr(self, what)()
            self.heard(stopped.go_on())

    def cut(self) -> None:
        """Cut all connections to PostgreSQL."""
        self.counts["cut connections"] += len(
            own_server().execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
            )
        )

    def restart(self) -> None:
        """Let PostgreSQL end as in a crash, and start again."""
        self.counts["restarts"] += 1
        own_server().stop("immediate")
        own_server().start()

    def lose_answer(self) -> None:
        """Let PostgreSQL do what a statement asks for, and lose its answer with the connection."""
        marker = self.dice.choice(STATEMENTS)
        self.told[-1] += f" {marker}"
        way().lose_answer(marker, self.dice.randrange(1, 3))

    def store_error(self) -> None:
        """Let the store be unusable during a call."""
        with self.unusable():
            self.call()

    @contextmanager
    def unusable(self) -> Iterator[None]:
        """Let the store be gone, as an unmounted disk, one of its directories be a file, or its server be silent."""
        self.counts["store errors"] += 1
        if self.bucket is not None:
            with own_objects().silent():
                yield
            return
        place = self.store if self.dice.randrange(2) else self.store / self.dice.choice(["results", "spool"])
        aside = self.directory / "aside"
        was_there = place.exists()
        self.told[-1] += f", without {place.name}"
        if was_there:
            place.rename(aside)
        if place != self.store:
            place.touch()
        try:
            yield
        finally:
            if place.is_dir():  # made anew meanwhile, which the disk hides once it is mounted
                shutil.rmtree(place)
            place.unlink(missing_ok=True)
            if was_there:
                aside.rename(place)

    def misbehave(self) -> None:
        """Let up to five faults come, each at some request of its route."""
        dice = self.dice
        rules = drawn(dice, self.weather)
        if dice.randrange(6) == 0 and not self.is_bad:  # told twice, a bad end is one: what failed is sent anew
            self.is_bad = True
            rules.insert(0, bad_end(dice))
        if self.weather == "lagging":
            rules.append(LIST | {"lag": LAG, "times": 1_000})
        self.emulator.faults(*rules)
        self.rules += rules

    # From its beginning to its end

    def run(self) -> None:
        """Run it, and check what must be true at the end."""
        lost_before = way().lost
        with Emulator(self.directory / "server", job_seconds=self.dice.choice([0, 0.2])) as self.emulator:
            try:
                self.misbehave()
                for number in range(self.dice.randrange(4, 11)):
                    event = self.dice.choice(EVENTS if number else FIRST)
                    self.told.append(event)
                    getattr(self, "store_error" if event == "store" else event)()
                    if self.dice.randrange(4) == 0:
                        self.misbehave()
                way().lose_answer("", 0)
                self.end()
                self.counts["answers of PostgreSQL lost"] += way().lost - lost_before
            except BaseException as error:
                error.add_note(
                    f"--seed {self.seed} --team-schedules 1 runs it again; {self.machines} machines, {self.weather}, "
                    f"limits {self.limits}{self.arguments}, events {'; '.join(self.told)}, "
                    f"rules {self.rules}, said {self.said}"
                )
                raise
            finally:
                way().lose_answer("", 0)
                for stopped, _ in self.stopped.values():
                    stopped.kill()
                for user in self.users.values():
                    user.close()

    def end(self) -> None:
        """Let everybody go on until all answers are there, and check them on every machine and on a new one."""
        self.emulator.faults(*(rule for rule in self.rules if "lag" in rule))
        first = self.user(self.dice.choice(self.free()))
        found = first.go_on(PATIENCE)
        while self.stopped:
            self.told.append("wake")
            self.wake()
        assert {row["outcome"] for row in found} == {"ok"}
        self.emulator.faults()  # the checks read the list too
        jobs = 3 if self.limits else 1
        for machine in range(self.machines + 1):
            user = self.user(machine)
            if machine < self.machines:
                assert user.go_on(PATIENCE) == found
                # What a killed process had begun to download stays if another machine has kept it meanwhile.
                with closing(Context(Settings.resolve(settings_of(self.emulator, user.home, **self.settings)))) as here:
                    clean(here, Asked(), free=True)
            else:  # a new one, with an empty disk
                assert user.read_on(PATIENCE) == found
            check_invariants(user, jobs=jobs)
            self.counts["rows checked"] += len(found)
        self.check_secrets()
        witness = self.emulator.witness()
        self.counts["schedules"] += 1
        self.counts["with a bucket"] += self.bucket is not None
        self.counts["lost creates"] += sum("is not known" in said for said in self.said)
        self.counts["creates without a job"] += witness["creates_received"] - witness["jobs_stored"]
        self.counts["paid twice"] += witness["rows_accepted_more_than_once"]

    def check_secrets(self) -> None:
        """Check that neither the key nor the password of the ledger is anywhere."""
        if self.bucket is not None:
            fs.copy_files(self.bucket, str(self.store), source_filesystem=own_objects().filesystem())
            assert any(self.store.rglob("*.parquet"))
        for directory in (self.store, *(self.home(machine) for machine in range(self.machines + 1))):
            assert_no_key(directory, *self.said)
            for path in directory.rglob("*"):
                assert not path.is_file() or PASSWORD.encode() not in path.read_bytes(), path
        assert not any(PASSWORD in said for said in self.said)
        for table in ("meta", "submissions", "parts", "jobs", "locks"):
            told = str(own_server().execute(f"SELECT * FROM {self.schema}.{table}"))
            assert PASSWORD not in told
            assert KEY not in told


@pytest.mark.fault("all")
@pytest.mark.timeout(1200)
def test_team_schedules(seeds: range, tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    """However the machines of a team and what they share fail, each row is paid for once and read by everybody."""
    counts: Counter[str] = Counter()
    for seed in seeds:
        TeamSchedule(seed, tmp_path / str(seed), counts).run()
    record_property("schedules", dict(counts))
