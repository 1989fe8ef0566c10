"""The state directory's names, which are a format: homes of earlier versions are read by them."""

from __future__ import annotations

from pathlib import Path

from duckdb_mistral.jobs.job import Job, Step
from duckdb_mistral.jobs.report import JobReport
from duckdb_mistral.state import names
from duckdb_mistral.state.home import Home

HOME = Home(Path("home"))
JOB = Job(
    key=7,
    submission_id="s-1",
    part=2,
    model="m",
    endpoint="/v1/chat/completions",
    server_url="https://api.mistral.ai",
    step=Step.CREATED,
    request_count=1,
    input_bytes=1,
    created_here_at=0,
    report=JobReport(job_id="j-1", status="SUCCESS"),
)
UNSENT = JOB.evolve(report=None, step=Step.PLANNED)


def test_names_are_a_format() -> None:
    """Every path under a home is called as it always was."""
    scratch = HOME.scratch(JOB)
    aside, moved = HOME.new_aside()
    paths = [
        *HOME.ledger_files,
        HOME.building.ledger,
        *(path.with_name(path.name.replace(aside.name, "damaged-")) for path in [aside]),
        HOME.lock("name"),
        HOME.part("s-1", 2),
        names.keys_path(HOME.part("s-1", 2)),
        names.mark_path(HOME.spool("s-1")),
        names.pending_path(HOME.spool("s-1")),
        names.spill_path(HOME.spool("s-1")),
        HOME.hashes(JOB),
        names.unfinished_path(HOME.hashes(JOB), JOB),
        HOME.copies("s-1"),
        HOME.results_of(JOB),
        HOME.results_of(UNSENT),
        names.line_path(HOME.results_of(JOB), 0),
        HOME.partial(JOB),
        HOME.found("s-1"),
        names.fetched_path(scratch, JOB),
        names.read_path(names.fetched_path(scratch, JOB)),
        names.unfinished_path(names.fetched_path(scratch, JOB)),
        names.answers_path(scratch, 0),
        names.submitted_path(scratch, JOB),
        names.joined_path(names.submitted_path(scratch, JOB)),
        names.piece_path(names.submitted_path(scratch, JOB)),
        names.scratch_spill(scratch),
        HOME.retry_scratch("s-2"),
    ]
    assert [path.relative_to("home").as_posix() for path in paths] == [
        "ledger.sqlite",
        "ledger.sqlite-wal",
        "ledger.sqlite-shm",
        "ledger-unfinished/ledger.sqlite",
        "damaged-",
        "locks/name.lock",
        "spool/s-1/part-00002.jsonl",
        "spool/s-1/part-00002.arrow",
        "spool/s-1/recorded.json",
        "spool/s-1/pending.jsonl",
        "spool/s-1-spill",
        "requests/s-1-2.parquet",
        "requests/s-1-2.job-7.unfinished",
        "requests/copies-s-1.parquet",
        "results/j-1.parquet",
        "results/s-1-2-7.parquet",
        "results/j-1.lines-0.jsonl",
        "results/partial-j-1.parquet",
        "results/found-s-1.parquet",
        "results/scratch-7/j-1.parquet",
        "results/scratch-7/j-1.read",
        "results/scratch-7/j-1.unfinished",
        "results/scratch-7/answers-0.jsonl",
        "results/scratch-7/submitted-7.jsonl",
        "results/scratch-7/submitted-7.joined",
        "results/scratch-7/submitted-7.piece",
        "results/scratch-7/spill",
        "results/scratch-retry-s-2",
    ]
    assert moved == {file: aside / file.name for file in HOME.ledger_files}


def test_locks_are_a_format() -> None:
    """Processes of different versions wait for one another by the same names."""
    locks = [names.spool_lock("s-1"), names.results_lock(JOB), names.retry_lock("s-1"), names.create_lock("a")]
    assert locks == ["spool-s-1", "results-7", "retry-s-1", "create-a"]
    assert (names.REUSE_LOCK, names.REPAIR_LOCK) == ("reuse", "repair")


def test_names_tell_what_they_were_made_of() -> None:
    """What a name was made of is read from it, and nothing is read from another one's."""
    assert [names.part_number(HOME.part("s-1", part)) for part in (1, 99_999, 100_000)] == [1, 99_999, 100_000]
    assert names.part_number(names.keys_path(HOME.part("s-1", 1))) is None
    assert [names.spool_of(path) for path in (HOME.spool("s-1"), names.spill_path(HOME.spool("s-1")))] == ["s-1"] * 2
    assert names.scratch_lock(HOME.scratch(JOB)) == names.results_lock(JOB)
    assert names.scratch_lock(HOME.retry_scratch("s-2")) == names.spool_lock("s-2")
    stems = [names.stem_of(path) for path in (HOME.found("s-1"), HOME.copies("s-1"), HOME.results_of(JOB))]
    assert [names.found_by(stem) for stem in stems] == ["s-1", None, None]
    assert [names.copied_by(stem) for stem in stems] == [None, "s-1", None]
    assert names.hashed_part(names.stem_of(HOME.hashes(JOB))) == ("s-1", "2")
    assert names.job_named(names.stem_of(HOME.partial(JOB))) == names.stem_of(HOME.results_of(JOB)) == "j-1"


def test_files_that_belong_together_share_a_stem() -> None:
    """Whatever lies beside a results file or a part is known to be its own, also before it is whole."""
    results, part = HOME.results_of(JOB), HOME.part("s-1", 2)
    temporary = results.with_name(f"tmp_{results.name}")
    for path in (results, names.line_path(results, 11), names.read_path(results), temporary):
        assert names.stem_of(path) == "j-1"
    assert names.stem_of(names.unfinished_path(HOME.hashes(JOB), JOB)) == names.stem_of(HOME.hashes(JOB))
    assert names.stem_of(names.keys_path(part)) == names.stem_of(part)
    unfinished = [names.read_path(results), names.unfinished_path(results), temporary]
    assert [names.is_unfinished(path) for path in (results, *unfinished)] == [False, True, True, True]


def test_asides(tmp_path: Path) -> None:
    """Ledgers that were put aside are found again, and a home that is not there has none."""
    home = Home(tmp_path)
    aside, _ = home.new_aside()
    aside.mkdir()
    assert (home.asides, Home(tmp_path / "none").asides) == ([aside], [])
