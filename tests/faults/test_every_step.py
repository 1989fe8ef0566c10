"""Fail, then kill, the Nth operation, for N after N until the story runs through; all ends well each time.

`--every 1` leaves no N out, as `make soak` does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from faults.harness import QUICK, Story, check_invariants
from support import environment_of, run_forked

from duckdb_mistral.emulator import Emulator, Rule
from duckdb_mistral.runtime.failpoints import VARIABLE

if TYPE_CHECKING:
    from pathlib import Path

#: The loop is cut into strides, so that workers share it.
STRIDES = range(4)
KILLED = -9
STORY = """
import sys
import duckdb
import duckdb_mistral
con = duckdb_mistral.connect()
con.execute("CREATE TABLE staging AS SELECT range::VARCHAR AS custom_id, 'prompt ' || range AS prompt FROM range(10)")
try:
    submission_id = con.execute("FROM mistral_batch_submit('staging')").fetchall()[0][0]
    con.execute("FROM mistral_batch_wait($id)", {"id": submission_id}).fetchall()
    con.execute(f"FROM mistral_batch_results('{submission_id}')").fetchall()
except duckdb.Error as error:
    sys.exit(str(error))
"""


@pytest.fixture
def every(request: pytest.FixtureRequest) -> int:
    """Return how many steps lie between two kills: `make soak` leaves none out."""
    number: int = request.config.getoption("--every")
    return number


def tell(emulator: Emulator, home: Path, failpoint: str) -> tuple[int, str]:
    """Run the story in a process of its own; return its exit status and what it said."""
    environment = environment_of(emulator, home) | {VARIABLE: failpoint}
    environment |= {f"DUCKDB_MISTRAL_{name.upper()}": str(value) for name, value in QUICK.items()}
    child = run_forked(STORY, environment)
    return child.returncode, child.stderr


def end_well(emulator: Emulator, home: Path, said: str) -> None:
    """Go on with the same statements in this process, and check what must be true at the end."""
    story = Story(emulator, home, said=[said])
    assert {row["outcome"] for row in story.go_on()} == {"ok"}
    check_invariants(story)
    story.close()


@pytest.mark.newest
@pytest.mark.fault("F01", "F02", "F03", "F28")
@pytest.mark.parametrize("stride", STRIDES)
def test_killed_at_every_step(stride: int, every: int, tmp_path: Path) -> None:
    """A process that is killed at its Nth step is continued by the next one, for every N."""
    number = (stride + 1 - len(STRIDES)) * every
    while True:
        number += len(STRIDES) * every
        home = tmp_path / f"home-{number}"
        with Emulator(tmp_path / f"server-{number}") as emulator:
            status, said = tell(emulator, home, f"*:{number}")
            assert status in (0, KILLED), said
            end_well(emulator, home, said)
        if status == 0:
            break
    assert number > 20


@pytest.mark.newest
@pytest.mark.fault("F33")
@pytest.mark.parametrize("stride", STRIDES)
def test_disk_full_from_every_step_on(stride: int, every: int, tmp_path: Path) -> None:
    """Where the disk is full from the Nth write on, the user reads a sentence, and all ends well once it is not."""
    number = (stride + 1 - len(STRIDES)) * every
    while True:
        number += len(STRIDES) * every
        home = tmp_path / f"home-{number}"
        with Emulator(tmp_path / f"server-{number}") as emulator:
            status, said = tell(emulator, home, f"full:*:{number}")
            assert status in (0, 1), said
            assert "Traceback" not in said
            assert status == 0 or "No space left on device" in said
            assert emulator.witness()["requests"].get("create", 0) <= 1
            end_well(emulator, home, said)
        if status == 0:
            break
    assert number > 5


@pytest.mark.fault("F33")
def test_intent_that_cannot_be_written(emulator: Emulator, home: Path) -> None:
    """Where the intent cannot be written down, nothing is sent: the workspace's list may have been read."""
    status, said = tell(emulator, home, "full:before-commit:2")
    assert status == 1
    assert "so nothing is sent" in said
    assert emulator.witness()["requests"].keys() <= {"list_jobs"}


FAILURES: dict[str, dict[str, Any]] = {
    "the connection ends before the work": {"close": True},
    "the connection ends after the work": {"close": True, "after": True},
    "500 before the work": {"status": 500},
    "500 after the work": {"status": 500, "after": True},
    "no answer in time": {"delay": 1.5, "after": True},
}


@pytest.mark.newest
@pytest.mark.fault("F04", "F06", "F20", "F22", "F26", "F28")
@pytest.mark.parametrize("failure", FAILURES)
def test_every_request_fails_once(failure: str, tmp_path: Path) -> None:
    """Whatever becomes of the Nth request, all ends well, for every N."""
    number = 0
    while True:
        rule = Rule(method=".*", path=".*", skip=number, **FAILURES[failure])
        number += 1
        with Emulator(tmp_path / f"server-{number}") as emulator:
            emulator.faults(rule)
            story = Story(emulator, tmp_path / f"home-{number}", settings={"deadline_seconds": 1})
            story.go_on()
            reached = rule.times == 0
            emulator.faults()
            check_invariants(story)
            story.close()
        if not reached:
            break
    assert number > 5


@pytest.mark.fault("F01", "F02", "F03", "F28")
@pytest.mark.parametrize(
    "name", ["after-spool", "after-intent", "before-upload", "after-upload", "before-create", "after-create"]
)
def test_killed_at_a_named_step(name: str, emulator: Emulator, home: Path) -> None:
    """A process that is killed between spooling and recording leaves nothing to be sent or uploaded twice."""
    status, said = tell(emulator, home, name)
    assert status == KILLED, said
    stored = emulator.witness()
    end_well(emulator, home, said)
    witness = emulator.witness()
    assert witness["uploads_stored"] == 1
    assert witness["creates_received"] == 1
    assert stored["jobs_stored"] == (1 if name == "after-create" else 0)


def test_killed_between_two_parts(emulator: Emulator, home: Path) -> None:
    """A process that is killed after its second part is continued with the third."""
    environment = environment_of(emulator, home) | {
        VARIABLE: "after-create:2",
        "DUCKDB_MISTRAL_MAX_REQUESTS_PER_JOB": "3",
    }
    child = run_forked(STORY, environment)
    assert child.returncode == KILLED, child.stderr
    assert emulator.witness()["jobs_stored"] == 2
    story = Story(emulator, home, settings={"max_requests_per_job": 3})
    story.go_on()
    check_invariants(story, jobs=4)
    story.close()


def test_sentences_of_a_full_disk(emulator: Emulator, home: Path) -> None:
    """A disk that is full while the requests are written is told in a sentence that names the directory."""
    _, said = tell(emulator, home, "full:before-spool-write:1")
    assert "The requests could not be written to" in said
    assert "Nothing was sent" in said
