"""The cases: which contenders take turns on what, and the ratios that are read off them."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from benchmarks import data
from benchmarks.caps import FILE_ID, LONG_BYTES
from benchmarks.cells import Scratch, each, megabytes, memory_of, plain, ratio, seconds, steps, tenths
from benchmarks.disk import PeakDisk
from benchmarks.hostile import ANSWERS, hostile
from benchmarks.processes import Measured, run_contender, server, take_turns, witness

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

JOBS = 1_000
#: Requests, requests per part, the limit of pending requests, and the seconds that the server tells a job to go on for:
#: first more requests, then more parts, of which a hundred have room at a time; and in parts as they are by default.
SCALES = (
    (1_000_000, 1_000_000, 1_000_000, 0),
    (3_000_000, 1_000_000, 1_000_000, 0),
    (10_000_000, 1_000_000, 1_000_000, 0),
    (100_000, 1_000, 100_000, 10),
    (300_000, 1_000, 100_000, 10),
    (1_000_000, 1_000, 100_000, 10),
    (10_000_000, 100_000, 1_000_000, 0),
)
#: How long the case caps lets an answer be silent.
CAPS_DEADLINE = 3.0
CAPPED = {
    "endless": "a file without end, as fast as it is taken",
    "trickling": "a file without end, 80 kB a second",
    "packed": "3.2 MB of gzip that hold 3.3 GB",
    "line": "one line of 2.2 GB",
    "dripping": "headers that do not end",
    "deep": "JSON of 100,000 levels",
    "long": "a line of 130 MB among the results",
}
#: The shell may be older than Python's DuckDB.
OLDEST_STORAGE = "v1.5.0"
BARE = "import duckdb, pyarrow; duckdb.default_connection().execute('SELECT 1')"
REGISTERED = f"{BARE}; import duckdb_mistral; duckdb_mistral.register()"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of a case's table: what was measured at one size."""

    case: str
    rows: int
    length: int
    #: {column: text}, in order.
    cells: dict[str, str]
    #: {what: value} for the plot.
    figures: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What to measure: numbers of prompts, their lengths in bytes, how often, and where to put files."""

    rows: tuple[int, ...]
    lengths: tuple[int, ...]
    repeats: int
    scratch: Path
    #: Numbers of prompts, of the longest of the lengths, for the case memory.
    memory_rows: tuple[int, ...]
    #: Larger data than this is left out where a contender has to hold it in memory.
    most_bytes: int

    def each(self) -> Iterator[tuple[int, int]]:
        """Yield every number of prompts with every length."""
        for length in self.lengths:
            for rows in self.rows:
                if rows * length <= self.most_bytes:
                    yield rows, length


def build(sizes: Sizes) -> Iterator[Row]:
    """Staging table to part files, against COPY … TO … (FORMAT json) of the same lines."""
    for rows, length in sizes.each():
        with Scratch(sizes.scratch) as scratch:
            database = scratch / "staging.duckdb"
            data.make_staging(database, rows, length)
            given = {"scratch": str(scratch), "database": str(database), "rows": rows}
            found = take_turns({"build_copy": given, "build_spool": given}, repeats=sizes.repeats)
        floor, ours = found["build_copy"], found["build_spool"]
        assert floor.figures["bytes"] == ours.figures["bytes"]
        yield Row(
            case="build",
            rows=rows,
            length=length,
            cells={
                "COPY": seconds(floor.total),
                "submit, until the upload": seconds(ours.total),
                "ratio": ratio(ours.total, floor.total),
                "of processor time": ratio(ours.processor_seconds, floor.processor_seconds),
                "per request": each(ours.total, rows),
                "memory added, COPY": megabytes(floor.added_bytes),
                "memory added, submit": megabytes(ours.added_bytes),
            },
        )


def read(sizes: Sizes) -> Iterator[Row]:
    """Read a downloaded file into a table, verified, against CREATE TABLE AS FROM read_json of the same file."""
    for rows, length in sizes.each():
        with Scratch(sizes.scratch) as scratch:
            given = _files(scratch, rows, length)
            names = ("read_floor", "read_detected", "read_verified", "read_everything", "read_by_hand", "read_joined")
            found = take_turns(dict.fromkeys(names, given), repeats=sizes.repeats)
        floor, detected, ours, everything, by_hand, joined = (found[name] for name in names)
        yield Row(
            case="read",
            rows=rows,
            length=length,
            cells={
                "read_json, body as JSON": seconds(floor.total),
                "read_json, columns detected": seconds(detected.total),
                "results, content": seconds(ours.total),
                "ratio to body as JSON": ratio(ours.total, floor.total),
                "of processor time": ratio(ours.processor_seconds, floor.processor_seconds),
                "ratio to detected": ratio(ours.total, detected.total),
                "of it to verified Parquet": seconds(ours.seconds["verify"]),
                "results, all columns": seconds(everything.total),
                "its ratio to body as JSON": ratio(everything.total, floor.total),
                "by hand, joined": seconds(by_hand.total),
                "results, joined": seconds(joined.total),
                "ratio to by hand": ratio(joined.total, by_hand.total),
                "of its processor time": ratio(joined.processor_seconds, by_hand.processor_seconds),
                "per request": each(ours.total, rows),
                "memory added, read_json": megabytes(floor.added_bytes),
                "memory added, results": megabytes(ours.added_bytes),
            },
        )


def whole(sizes: Sizes) -> Iterator[Row]:
    """From a table to the same table with answers, waiting left out, against DuckDB by hand and two loops."""
    names = ("whole_client", "whole_by_hand", "whole_orjson", "whole_loop")
    for rows, length in sizes.each():
        with Scratch(sizes.scratch) as scratch:
            database = scratch / "staging.duckdb"
            data.make_staging(database, rows, length)
            with server(scratch / "server") as url:
                given = {"scratch": str(scratch), "database": str(database), "rows": rows, "url": url}
                found = take_turns(dict.fromkeys(names, given), repeats=sizes.repeats)
        ours, *others = (found[name] for name in names)
        by_hand, quick, documented = others
        yield Row(
            case="whole",
            rows=rows,
            length=length,
            cells={
                "this package": steps(ours),
                "DuckDB by hand": steps(by_hand),
                "loop with orjson": steps(quick),
                "documented loop": steps(documented),
                "this package ÷ by hand": ratio(ours.total, by_hand.total),
                "of processor time": ratio(ours.processor_seconds, by_hand.processor_seconds),
                "÷ orjson": plain(ours.total, quick.total),
                "÷ orjson, processor time": plain(ours.processor_seconds, quick.processor_seconds),
                "÷ documented loop": plain(ours.total, documented.total),
                "÷ documented loop, processor time": plain(ours.processor_seconds, documented.processor_seconds),
            },
            figures={name: found[name].total / rows for name in names},
        )
        room = {"this package": ours, "by hand": by_hand, "orjson": quick, "documented loop": documented}
        yield Row(
            case="room",
            rows=rows,
            length=length,
            cells={
                **{f"memory added, {name}": megabytes(one.added_bytes) for name, one in room.items()},
                "this package ÷ by hand": ratio(ours.added_bytes, by_hand.added_bytes),
                **{f"disk at most, {name}": tenths(one.figures["disk"]) for name, one in room.items()},
                "left there, this package": tenths(ours.figures["kept"]),
            },
        )


def start(sizes: Sizes) -> Iterator[Row]:
    """Import and register, beyond `import duckdb, pyarrow`."""
    taken: dict[str, list[float]] = {BARE: [], REGISTERED: []}
    for _ in range(3 * sizes.repeats):
        for code, runs in taken.items():
            timed = f"import time; t = time.perf_counter(); {code}; print(time.perf_counter() - t)"
            done = subprocess.run([sys.executable, "-c", timed], capture_output=True, text=True, check=True)
            runs.append(float(done.stdout))
    bare, registered = min(taken[BARE]), min(taken[REGISTERED])
    yield Row(
        case="start",
        rows=0,
        length=0,
        cells={
            "import duckdb, pyarrow": seconds(bare),
            "with duckdb_mistral, registered": seconds(registered),
            "more": seconds(registered - bare),
        },
    )


def status(sizes: Sizes) -> Iterator[Row]:
    """mistral_batch_status of a thousand jobs that run."""
    with Scratch(sizes.scratch) as scratch, server(scratch / "server", job_seconds=1_000_000) as url:
        _fill_ledger(scratch / "home", url, JOBS)
        given = {"scratch": str(scratch), "home": str(scratch / "home"), "url": url, "jobs": JOBS}
        before = witness(url)["requests"]
        runs = [run_contender("status", given) for _ in range(sizes.repeats)]
        after = witness(url)["requests"]
    calls = {name: (count - before.get(name, 0)) / sizes.repeats for name, count in after.items()}
    yield Row(
        case="status",
        rows=JOBS,
        length=0,
        cells={
            "time": seconds(min(run.total for run in runs)),
            "API calls": ", ".join(f"{count:g} {name}" for name, count in calls.items() if count),
        },
    )


def memory(sizes: Sizes) -> Iterator[Row]:
    """Grow the number of long prompts: the memory that submitting and reading add. The source makes rows as it goes."""
    length = max(sizes.lengths)
    for rows in sizes.memory_rows:
        with Scratch(sizes.scratch) as scratch, server(scratch / "server") as url:
            given = {"scratch": str(scratch), "home": str(scratch / "home"), "url": url, "rows": rows, "length": length}
            with PeakDisk(scratch / "home") as disk:
                found = run_contender("memory", given)
        yield Row(
            case="memory",
            rows=rows,
            length=length,
            cells={
                "answers": megabytes(found.figures["bytes"]),
                "parts": str(found.figures["parts"]),
                "time": steps(found),
                "submit added": megabytes(found.figures["submit"]),
                "results added": megabytes(found.figures["results"]),
                "our disk at most": megabytes(disk.peak_bytes),
            },
            figures={"submit added": found.figures["submit"], "results added": found.figures["results"]},
        )


def scale(sizes: Sizes) -> Iterator[Row]:
    """Grow the number of requests, then of parts, far beyond the pending limit, on a server that has the limit too."""
    for rows, rows_per_part, limit, job_seconds in SCALES:
        with Scratch(sizes.scratch) as scratch:
            with server(scratch / "server", job_seconds=job_seconds, max_pending_requests=limit) as url:
                given: dict[str, Any] = {"scratch": str(scratch), "home": str(scratch / "home"), "url": url}
                given |= {"rows": rows, "rows_per_part": rows_per_part, "limit": limit}
                with PeakDisk(scratch / "home") as ours, PeakDisk(scratch / "server") as theirs:
                    found = run_contender("scale", given)
                told = witness(url)
            parts = found.figures["parts"]
            assert (told["rows_accepted"], told["rows_accepted_more_than_once"]) == (rows, 0)
            assert (told["jobs_stored"], told["uploads_stored"]) == (parts, parts)
            assert told["peak_pending_requests"] <= limit
        yield Row(
            case="scale",
            rows=rows,
            length=0,
            cells={
                "requests": f"{rows:,}",
                "parts": f"{parts:,}",
                "limit": f"{limit:,}",
                "most pending": f"{told['peak_pending_requests']:,}",
                "API calls": ", ".join(f"{count:,} {name}" for name, count in sorted(told["requests"].items())),
                "calls per part": f"{sum(told['requests'].values()) / parts:.1f}",
                "time": steps(found),
                "of our processor time": seconds(found.processor_seconds),
                "our memory": memory_of(found),
                "ledger": f"{found.figures['ledger_bytes'] / 1000:,.0f} kB",
                "our disk at most": megabytes(ours.peak_bytes),
                "the server's": megabytes(theirs.peak_bytes),
            },
        )


def shell(sizes: Sizes) -> Iterator[Row]:
    """Submit and join results from the official duckdb shell, against the same from Python and DuckDB by hand."""
    for rows, length in sizes.each():
        with Scratch(sizes.scratch) as scratch, server(scratch / "server") as url:
            database = scratch / "staging.duckdb"
            data.make_staging(database, rows, length, storage=OLDEST_STORAGE)
            given = {"scratch": str(scratch), "database": str(database), "rows": rows, "url": url}
            names = ("shell_statements", "python_statements", "whole_by_hand")
            found = take_turns(dict.fromkeys(names, given), repeats=sizes.repeats)
        in_shell, in_python, by_hand = (found[name] for name in names)
        yield Row(
            case="shell",
            rows=rows,
            length=length,
            cells={
                "in the shell": steps(in_shell),
                "in Python": steps(in_python),
                "DuckDB by hand": steps(by_hand),
                "shell ÷ by hand": ratio(in_shell.total, by_hand.total),
                "shell ÷ Python": ratio(in_shell.total, in_python.total),
                "memory, shell": megabytes(in_shell.figures["shell"]),
                "memory, its helper": megabytes(in_shell.figures["helper"]),
                "memory, Python": megabytes(in_python.peak_bytes),
                "memory, by hand": megabytes(by_hand.peak_bytes),
            },
        )


def caps(sizes: Sizes) -> Iterator[Row]:
    """Meet answers beyond all measure: what they take of a client's memory, disk and time."""
    for kind in ANSWERS:
        with Scratch(sizes.scratch) as scratch, hostile(kind) as url:
            given = {"scratch": str(scratch), "url": url, "lists": kind == "deep", "deadline_seconds": CAPS_DEADLINE}
            yield _cap(kind, run_contender("caps_answer", given))
    with Scratch(sizes.scratch) as scratch:
        yield _cap("long", run_contender("caps_line", {"scratch": str(scratch), "line_bytes": LONG_BYTES}))


def _cap(kind: str, found: Measured) -> Row:
    return Row(
        case="caps",
        rows=2,
        length=0,
        cells={
            "answer": CAPPED[kind],
            "time": seconds(found.total),
            "memory added": megabytes(found.added_bytes),
            "left on the disk": megabytes(found.figures["bytes"]),
            "what is told": found.figures["said"].replace(FILE_ID, "…")[:120] or "nothing: it is read",
        },
    )


CASES: dict[str, Callable[[Sizes], Iterator[Row]]] = {
    function.__name__: function for function in (whole, build, read, start, status, memory, scale, caps, shell)
}


def _files(scratch: Path, rows: int, length: int) -> dict[str, Any]:
    """Make the result file of a job and the file of its requests."""
    results, requests = scratch / "results.jsonl", scratch / "requests.jsonl"
    data.make_result_file(results, rows, length)
    data.make_request_file(requests, rows, length)
    data.make_keys_file(requests, rows)
    return {"scratch": str(scratch), "results": str(results), "requests": str(requests), "rows": rows}


def _fill_ledger(home: Path, url: str, count: int) -> None:
    """Put `count` jobs into the server and into a ledger, as if they had been submitted one by one."""
    from duckdb_mistral.batches.context import Context
    from duckdb_mistral.jobs.job import Part, Step, Submission, now
    from duckdb_mistral.settings import Settings
    from duckdb_mistral.state.home import Home
    from duckdb_mistral.state.ledger import Ledger

    settings = Settings.resolve({"api_key": "a-key-of-the-benchmarks", "server_url": url, "home": home}, {})
    ledger = Ledger(Home(home))
    requests = home / "requests.jsonl"
    data.make_request_file(requests, 1, 300)
    size = requests.stat().st_size
    submission = Submission(
        submission_id=str(uuid4()),
        identity="0",
        server_url=settings.server_url,
        account="0",
        endpoint="/v1/chat/completions",
        models=("mistral-small-latest",),
        timeout_hours=24,
        metadata=(),
        request_count=count,
        input_bytes=count * size,
        created_at=now(),
    )
    parts = [
        Part(submission_id=submission.submission_id, part=number + 1, request_count=1, input_bytes=size)
        for number in range(count)
    ]
    with Context(settings).client as client:
        file_id = client.upload(requests, "requests.jsonl")
        ledger.add(submission, parts)
        for job in ledger.jobs(submission.submission_id):
            client_report = client.create(
                file_id=file_id, endpoint=submission.endpoint, model=job.model, metadata={}, timeout_hours=24
            )
            ledger.move(job, Step.SENDING, sent_at=now())
            ledger.created(job.evolve(step=Step.SENDING), client_report)
