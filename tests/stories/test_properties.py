"""What holds for any text, any JSON value, and any order of moves in the ledger."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from support import answered, connect, rows, submitted

from duckdb_mistral.emulator import Emulator
from duckdb_mistral.jobs.job import ARROWS, Job, Part, Step, Submission
from duckdb_mistral.jobs.report import ENDED, JobReport, Status
from duckdb_mistral.state.home import Home
from duckdb_mistral.state.ledger import Ledger

if TYPE_CHECKING:
    from collections.abc import Iterator

    import duckdb

#: Deadlines would be timings; the fixtures are of the module on purpose.
QUICK = settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
NASTY = [
    *("", " ", "\n", "\r\n", "\t", "\x00", "a\x00b", "\x1f", "\x7f", "\x85", "\u2028", "\u2029", "\ufeff", "\ufffe"),
    *("'", '"', "\\", "\\n", "\\u0000", "''", '""', "$$", "${x}", "$1", "{", "[", "]}", "--", "/*", ";", "%s", "NULL"),
    *(
        "é",
        "e\u0301",
        "日本",
        "שלום",
        "\u202eabc",
        "👩\u200d👩\u200d👧",
        "𝄞",
        "\U0010ffff",
        "null",
        "true",
        "1e400",
        "NaN",
    ),
    *("=HYPERLINK(1)", "'); DROP TABLE staging; --", '{"custom_id": "x"}', "\ud7ff", "\ue000", "\x1a", "\x1b[31m"),
]
CHARACTERS = st.characters(exclude_categories=["Cs"])
#: `[[` would direct the local server.
TEXTS = st.one_of(
    st.sampled_from(NASTY),
    st.text(CHARACTERS, max_size=40),
    st.lists(st.sampled_from(NASTY), min_size=2, max_size=6).map("".join),
).filter(lambda text: "[[" not in text)


@pytest.fixture(scope="module")
def con(tmp_path_factory: pytest.TempPathFactory) -> Iterator[duckdb.DuckDBPyConnection]:
    """Yield one connection, with a server of its own, for all examples."""
    with (
        Emulator(tmp_path_factory.mktemp("server")) as emulator,
        connect(emulator, tmp_path_factory.mktemp("state") / "home") as connection,
    ):
        yield connection


@QUICK
@given(st.dictionaries(TEXTS, TEXTS, min_size=1, max_size=120))
@pytest.mark.fault("F19", "F38")
def test_any_text(con: duckdb.DuckDBPyConnection, prompts: dict[str, str]) -> None:
    """Any text as custom_id and prompt comes back unchanged, previewed and through the server."""
    con.register("staging", pa.table({"custom_id": list(prompts), "prompt": list(prompts.values())}))
    previewed = {
        row["custom_id"]: json.loads(row["body"])["messages"][0]["content"]
        for row in rows(con, "FROM mistral_batch_preview('staging')")
    }
    assert previewed == prompts
    found = {row["custom_id"]: row["content"] for row in answered(con, submitted(con))}
    assert found == {custom_id: f"echo: {prompt}" for custom_id, prompt in prompts.items()}


@QUICK
@given(TEXTS)
@pytest.mark.fault("F19")
def test_any_text_as_argument(con: duckdb.DuckDBPyConnection, system: str) -> None:
    """Any text as the system argument arrives unchanged."""
    (row,) = rows(
        con, "FROM mistral_batch_preview('SELECT 1 AS custom_id, 2 AS prompt', system := $system)", {"system": system}
    )
    assert json.loads(row["body"])["messages"][0] == {"role": "system", "content": system}


NUMBERS = st.one_of(st.integers(), st.floats(allow_nan=False, allow_infinity=False))
JSON_VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXTS, inner, max_size=4)),
    max_leaves=12,
)


@QUICK
@given(st.lists(st.dictionaries(TEXTS, JSON_VALUES, max_size=4), min_size=1, max_size=40), st.booleans())
def test_any_body(con: duckdb.DuckDBPyConnection, bodies: list[dict[str, Any]], escape: bool) -> None:
    """Any JSON object as body is sent as the value that it is."""
    texts = [json.dumps(body, ensure_ascii=escape) for body in bodies]
    con.register("staging", pa.table({"custom_id": range(len(texts)), "body": texts}))
    for source in ("staging", "SELECT custom_id, body::JSON AS body FROM staging"):
        found = rows(con, "FROM mistral_batch_preview($source) ORDER BY custom_id::INTEGER", {"source": source})
        assert [json.loads(row["body"]) for row in found] == bodies


@QUICK
@given(JSON_VALUES, st.booleans())
def test_any_params(con: duckdb.DuckDBPyConnection, value: Any, escape: bool) -> None:
    """Any JSON value of a field in params is sent as the value that it is; null is left out."""
    (row,) = rows(
        con,
        "FROM mistral_batch_preview('SELECT 1 AS custom_id, 2 AS prompt', params := $params)",
        {"params": json.dumps({"x_Value": value}, ensure_ascii=escape)},
    )
    body = json.loads(row["body"])
    assert body.pop("messages") == [{"role": "user", "content": "2"}]
    assert body == ({} if value is None else {"x_Value": value})


#: Which job, counted over all there are; and which sight of it: 0 looks now, 1 is the last look before, and so on.
NUMBERS_OF_JOBS = st.integers(0, 5)
AGES = st.sampled_from([0, 0, 0, 1, 2])
LEDGERS = st.integers(0, 1)
REPORTED = st.sampled_from([status for status in Status if status not in (Status.HELD, Status.UNKNOWN)])


class LedgerMachine(RuleBasedStateMachine):
    """Two ledgers open on one file, and plain dictionaries that say what they must hold."""

    @initialize()
    def open(self) -> None:
        """Start with an empty directory."""
        self.home = Path(tempfile.mkdtemp())
        self.ledgers = [Ledger(Home(self.home)), Ledger(Home(self.home))]
        self.steps: dict[int, Step] = {}
        self.status: dict[int, str | None] = {}
        self.owner: dict[int, str] = {}
        self.live: dict[str, str] = {}
        self.seen: dict[int, list[Job]] = {}

    def teardown(self) -> None:
        """Leave nothing behind."""
        shutil.rmtree(self.home)

    def job(self, which: int, number: int, age: int) -> Job:
        """Return a job as it is now, or as it was seen before."""
        key = list(self.steps)[number % len(self.steps)]
        seen = self.seen[key]
        if not age:
            seen.append(self.ledgers[which].jobs_by_key([key])[0])
        return seen[max(-1 - age, -len(seen))]

    @rule(which=LEDGERS)
    def reopen(self, which: int) -> None:
        """Open the file again, as another process does."""
        self.ledgers[which] = Ledger(Home(self.home))

    @rule(which=LEDGERS, identity=st.sampled_from("ab"), parts=st.integers(1, 2), models=st.integers(1, 2))
    def add(self, which: int, identity: str, parts: int, models: int) -> None:
        """Record a submission: once, while one of the same content lives."""
        submission = Submission(
            submission_id=str(uuid4()),
            identity=identity,
            server_url="https://example.com",
            account="account",
            endpoint="/v1/chat/completions",
            models=tuple(f"model {number}" for number in range(models)),
            timeout_hours=24,
            metadata=(("team", "é'"),),
            request_count=parts,
            input_bytes=parts,
            created_at=len(self.steps),
        )
        its_parts = [
            Part(submission_id=submission.submission_id, part=number + 1, request_count=1, input_bytes=1)
            for number in range(parts)
        ]
        ledger = self.ledgers[which]
        assert ledger.add(submission, its_parts) == (identity not in self.live)
        if identity in self.live:
            living = ledger.live_submission(identity)
            assert living is not None
            assert living.submission_id == self.live[identity]
            return
        assert ledger.live_submission(identity) == submission
        self.live[identity] = submission.submission_id
        jobs = ledger.jobs(submission.submission_id)
        assert [(job.part, job.model) for job in jobs] == [
            (part.part, model) for part in its_parts for model in submission.models
        ]
        self.steps |= {job.key: Step.PLANNED for job in jobs}
        self.status |= {job.key: None for job in jobs}
        self.owner |= {job.key: submission.submission_id for job in jobs}
        self.seen |= {job.key: [job] for job in jobs}

    @precondition(lambda self: self.steps)
    @rule(which=LEDGERS, number=NUMBERS_OF_JOBS, age=AGES, step=st.sampled_from(list(Step)))
    def move(self, which: int, number: int, age: int, step: Step) -> None:
        """Move a job: along an arrow, and only from the step that the mover saw."""
        job = self.job(which, number, age)
        if step is Step.CREATED:
            self.create(which, job, Status.QUEUED)
        elif step not in ARROWS[job.step]:
            with pytest.raises(ValueError, match="no job moves"):
                self.ledgers[which].move(job, step)
        else:
            moved = self.ledgers[which].move(job, step, message="why")
            assert moved == (self.steps[job.key] is job.step)
            if moved:
                self.steps[job.key] = step

    @precondition(lambda self: self.steps)
    @rule(which=LEDGERS, number=NUMBERS_OF_JOBS, status=REPORTED)
    def send(self, which: int, number: int, status: str) -> None:
        """Take a job that waits all the way to its creation."""
        if self.job(which, number, 0).step in (Step.PLANNED, Step.HELD):
            self.move(which, number, 0, Step.SENDING)
            self.create(1 - which, self.job(which, number, 0), status)

    def create(self, which: int, job: Job, status: str) -> None:
        """Record a job as created: only from the sending of it."""
        report = JobReport(job_id=str(uuid4()), status=status)
        if Step.CREATED not in ARROWS[job.step]:
            with pytest.raises(ValueError, match="no job moves"):
                self.ledgers[which].created(job, report)
            return
        created = self.ledgers[which].created(job, report)
        assert created == (self.steps[job.key] is job.step)
        if created:
            self.steps[job.key], self.status[job.key] = Step.CREATED, status

    @precondition(lambda self: Step.CREATED in self.steps.values())
    @rule(which=LEDGERS, number=NUMBERS_OF_JOBS, status=REPORTED)
    def record(self, which: int, number: int, status: str) -> None:
        """Take over what the API says, except that an ended job does not go on."""
        created = [key for key, step in self.steps.items() if step is Step.CREATED]
        (job,) = self.ledgers[which].jobs_by_key([created[number % len(created)]])
        assert job.job_id is not None
        self.ledgers[which].record(JobReport(job_id=job.job_id, status=status))
        if self.status[job.key] not in ENDED or status in ENDED:
            self.status[job.key] = status

    @precondition(lambda self: self.live)
    @rule(which=LEDGERS, first=st.booleans())
    def retire(self, which: int, first: bool) -> None:
        """Let the same content be submitted anew, and drop what was never created."""
        identity = sorted(self.live)[0 if first else -1]
        retired = self.live.pop(identity)
        self.ledgers[which].retire(retired)
        for key, owner in self.owner.items():
            if owner == retired and self.steps[key] in (Step.PLANNED, Step.HELD):
                self.steps[key] = Step.DROPPED
            elif owner == retired and self.steps[key] is Step.SENDING:
                self.steps[key] = Step.GIVEN_UP

    @invariant()
    def both_agree(self) -> None:
        """Compare what both ledgers hold with the dictionaries."""
        for ledger in getattr(self, "ledgers", ()):
            jobs = ledger.jobs()
            assert {job.key: job.step for job in jobs} == self.steps
            assert {job.key: job.report.status if job.report else None for job in jobs} == self.status


LedgerMachine.TestCase.settings = settings(
    max_examples=40, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestLedger = LedgerMachine.TestCase
