"""What befalls a team at the Nth step of a process, for N after N: its machine is lost, or what all share fails.

`--every 1` leaves no N out, as `make soak` does.
"""

from __future__ import annotations

import shutil
import signal
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from faults.harness import QUICK, Story, check_invariants
from faults.test_every_step import KILLED, STORY, STRIDES
from faults.test_team_schedules import own_objects, own_server
from forking import fork_to_stop
from postgres import is_there, shared_server
from support import clean_environment, environment_of, run_forked

from duckdb_mistral.emulator import Emulator
from duckdb_mistral.runtime.failpoints import VARIABLE
from duckdb_mistral.state import leases

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

pytestmark = pytest.mark.skipif(not is_there(), reason="no PostgreSQL is installed here")
stops = pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="no process can be stopped here")

#: How long a lock outlives its holder here.
LEASE = 1.0
BRIEF = f"from duckdb_mistral.state import leases\nleases.LEASE_SECONDS = {LEASE}\n"
#: A server of objects that says nothing is given up after one second.
IMPATIENT = "from duckdb_mistral.state import store\nstore.QUIET_SECONDS = store.ATTEMPTS = 1\n"
#: Nothing is sent in vain here, so a busy machine has time for each request.
UNHURRIED = {"deadline_seconds": 20, "reconcile_seconds": 20}
#: How the lines end that a wait says if it takes a while.
PROGRESS = "requests are done."
#: What pyarrow itself says where it closes a file that it could not write.
ARROW = "Error ignored when destroying file"
LIMITS = {
    "max_requests_per_job": 6,
    "max_pending_requests": 6,  # so the second part is not uploaded before the first one has ended
}


def steps(request: pytest.FixtureRequest, stride: int, coarseness: int) -> Iterator[int]:
    """Yield each N of a stride without an end: all of them with `--every 1`, otherwise the fewer the coarser."""
    every: int = 1 + (request.config.getoption("--every") - 1) * coarseness
    return count((stride + 1) * every, len(STRIDES) * every)


def told(settings: dict[str, Any]) -> dict[str, str]:
    """Return settings as the variables that a process reads."""
    return {f"DUCKDB_MISTRAL_{name.upper()}": str(value) for name, value in settings.items()}


@pytest.mark.newest
@pytest.mark.fault("F01", "F02", "F03", "F28")
@pytest.mark.parametrize("stride", STRIDES)
def test_machine_lost_at_every_step(
    stride: int, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that dies at its Nth step, with its disk, is continued by another one that has none of its files."""
    monkeypatch.setattr(leases, "LEASE_SECONDS", LEASE)
    for number in steps(request, stride, 2):  # each is two processes on two machines
        home, store = tmp_path / f"home-{number}", tmp_path / f"store-{number}"
        store.mkdir()
        settings = QUICK | LIMITS | {"store": f"file://{store}", "ledger": shared_server().new_url()}
        with Emulator(tmp_path / f"server-{number}") as emulator:
            environment = environment_of(emulator, home) | told(settings) | {VARIABLE: f"*:{number}"}
            child = run_forked(BRIEF + STORY, environment)
            assert child.returncode in (0, KILLED), child.stderr
            shutil.rmtree(home, ignore_errors=True)
            end_well(emulator, tmp_path / f"other-{number}", settings, child.stderr)
        if child.returncode == 0:
            break
    assert number > 60


@stops
@pytest.mark.newest
@pytest.mark.fault("F28")
@pytest.mark.parametrize("stride", STRIDES)
def test_postgresql_restarted_at_every_step(stride: int, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """A process whose PostgreSQL crashes and starts again at its Nth step goes on without a word, for every N."""
    for _, said in failing(request, stride, tmp_path, new_directory, restarted):
        assert not said


@stops
@pytest.mark.newest
@pytest.mark.parametrize("stride", STRIDES)
def test_store_not_mounted_at_every_step(stride: int, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """A process whose store is gone from its Nth step on says so, and what it had is read later, for every N."""
    for store, said in failing(request, stride, tmp_path, new_directory, not_mounted):
        assert not said or f"the store {store}" in said


@stops
@pytest.mark.newest
@pytest.mark.parametrize("stride", STRIDES)
def test_store_silent_at_every_step(
    stride: int, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process whose bucket is silent from its Nth step on says so, and what it had is read later, for every N."""
    for name, value in own_objects().environment.items():
        monkeypatch.setenv(name, value)
    for store, said in failing(request, stride, tmp_path, new_bucket, silent):
        assert not said or f"the store {store}" in said


def failing(
    request: pytest.FixtureRequest,
    stride: int,
    directory: Path,
    new_store: Callable[[Path], str],
    fails: Callable[[str], AbstractContextManager[None]],
) -> Iterator[tuple[str, str]]:
    """Let something fail from the Nth step of a process to its end, for every N; yield its store and its error."""
    done = 0
    for number in steps(request, stride, 6):
        store, said = new_store(directory / f"store-{number}"), None
        settings = UNHURRIED | LIMITS | {"store": store, "ledger": own_server().new_url()}
        with Emulator(directory / f"server-{number}") as emulator:
            here = environment_of(emulator, directory / f"home-{number}") | told(settings)
            stopped = fork_to_stop(IMPATIENT + STORY, clean_environment() | here | {VARIABLE: f"stop:*:{number}"})
            if stopped is not None:
                try:
                    with fails(store):
                        said = stopped.go_on()
                finally:
                    if said is None:  # it could not fail, so the process stands there still
                        stopped.kill()
                assert "Traceback" not in said, said
            end_well(emulator, directory / f"other-{number}", settings, said or "")
        if said is None:
            break
        done += 1
        yield store, "".join(line for line in said.splitlines() if not (line.endswith(PROGRESS) or ARROW in line))
    assert number > 60
    request.node.user_properties.append(("schedules", {f"steps {fails.__name__.replace('_', ' ')}": done}))


def new_directory(path: Path) -> str:
    """Make a directory for a store, and return its URL."""
    path.mkdir()
    return f"file://{path}"


def new_bucket(_: Path) -> str:
    """Make a bucket for a store, and return its URL."""
    return f"s3://{own_objects().bucket()}/team"


@contextmanager
def restarted(_: str) -> Iterator[None]:
    """End PostgreSQL as in a crash, and start it again."""
    own_server().stop("immediate")
    own_server().start()
    yield


@contextmanager
def not_mounted(store: str) -> Iterator[None]:
    """Let a directory be away, which nothing makes anew."""
    here = Path(store.removeprefix("file://"))
    aside = here.with_name(f"{here.name}-aside")
    here.rename(aside)
    yield
    assert not here.exists()
    aside.rename(here)


def silent(_: str) -> AbstractContextManager[None]:
    """Let the server of the buckets say nothing."""
    return own_objects().silent()


def end_well(emulator: Emulator, home: Path, settings: dict[str, Any], said: str) -> None:
    """Go on with the same statements on a machine that has no files, and check what must be true at the end."""
    story = Story(emulator, home, settings=settings, said=[said])
    assert {row["outcome"] for row in story.go_on()} == {"ok"}
    check_invariants(story, jobs=2)
    story.close()
