"""The findings as Markdown tables, and as a plot where matplotlib is installed."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from benchmarks.cases import Row

TITLES = {
    "whole": "The whole of the client's side, waiting left out",
    "room": "Memory and disk of the same runs",
    "build": "Building: from the staging table to files that can be uploaded",
    "read": "Reading: from a downloaded result file to a table",
    "start": "Import and register",
    "first": "The first submit of a fresh process",
    "status": "Status of a thousand jobs",
    "jobs": "Many jobs in the ledger",
    "team": "A ledger of 100,000 jobs, under `home` and on PostgreSQL",
    "waiting": "Machines that wait together",
    "memory": "Memory as the number of prompts grows",
    "scale": "Up to ten million requests under a pending limit",
    "caps": "Answers beyond all measure",
    "shell": "From the official duckdb shell",
}
ABOUT = {
    "whole": (
        "Each contender makes files of request lines from a table, uploads them, downloads the results and makes a "
        "table of all columns of the first one and the content. It has done the same with three rows before, in the "
        "same process; up to 10,000 prompts it does it seven times, and the quickest of each step counts. All use the "
        "same server in the same run. Transfers are in; waiting and creating are not, except the processor time that "
        "this package spends on creating.\n\n"
        "- This package checks every row before anything is sent, records on the disk what it is about to do, sends "
        "nothing twice, checks that every custom_id comes back once, judges each answer, and keeps the "
        "results.\n"
        "- DuckDB by hand is COPY … (FORMAT json) into files of at most 512 MB, with preserve_insertion_order off, and "
        "a join with read_json, whose columns are named. It checks nothing: a custom_id that is NULL or there twice is "
        "sent; an answer that is missing, there twice or an error passes without a word; after a crash, the same is "
        "paid for again.\n"
        "- The loop with orjson writes and reads files line by line, fetches rows in batches, and hands (id, content) "
        "to DuckDB by Arrow. It checks as little; an answer without content ends it.\n"
        "- The documented loop follows the SDK's documentation: fetchall, json.dumps, files as bytes, json.loads. It "
        "keeps (id, content), as the loop with orjson does, and checks as little."
    ),
    "room": (
        "Memory as above, of all the times that a process does it; the table of the end is in it, which is the same "
        "for all. The disk is that of the first time: what a contender has under its own directory, looked at twice a "
        "second and at the end. By hand that is request lines and output files, with orjson request lines, in the "
        "documented loop the output file. This package has the request lines until all are answered; it leaves the "
        "results and the hashes of the requests as Parquet, of large result files the lines too, and its ledger."
    ),
    "build": (
        "COPY writes the lines to one file. A submit also checks every row, looks for repeated ids, hashes each "
        "request, splits the file at the API's limits and keeps what the results are checked against. DuckDB 1.5 takes "
        "longer than DuckDB 2 to hand its vectors to Python: there, a million prompts of 300 bytes took 1.1 to 1.8 "
        "times as long as COPY."
    ),
    "read": (
        "read_json makes a table of the file as it is. Results are first verified (every custom_id is there once), "
        "judged row by row and kept as Parquet; then they are made into a table, either of custom_id, outcome and "
        "content, or of all columns including each response. By hand, read_json with its columns named is joined to "
        "the table that was sent; results are joined to it likewise. Nothing of read_json checks anything: an answer "
        "that is missing, there twice or an error passes without a word."
    ),
    "first": (
        "A hundred prompts in a process that has imported DuckDB, Arrow and this package, and has registered the "
        "functions; create included. By hand, the SDK is imported, COPY writes the lines, and the SDK uploads and "
        "creates; it checks and records nothing."
    ),
    "jobs": (
        "SQLite alone writes the same reports in one transaction, compares nothing, and reads the rows as they lie "
        "there. A statement that runs for many rows is one; so is a BEGIN."
    ),
    "team": (
        "1,000 submissions of 100 parts each, whose jobs have ended, are written into the ledger first; its size is "
        "that of its files, or of its tables with their indexes. Then a process that has done all of it once submits 3 "
        "rows, submits 10,000 rows as 100 parts, reads their results twice (of which the first time downloads) and "
        "shows the status of all. Uploads, creates and downloads by the local server are in the times. Statements are "
        "those of SQLAlchemy: one that is run for many rows is one, a COMMIT is none. PostgreSQL runs on the same "
        "machine with its settings for safety on. Where it is far away, a relay passes all on later by half a ping "
        "each way, and counts round trips: how often the client says something after the server has; a new connection "
        "takes several."
    ),
    "waiting": (
        "Machines that wait for one submission of 100 jobs, which run on, with the settings as they are by default: "
        "each has a `home` of its own, all have the same key and the same ledger on PostgreSQL. The API calls are "
        "those that the local server counted in each minute; the statements are those of all machines together. The "
        "machines are threads of one process."
    ),
    "memory": (
        "The source generates its rows as they are read, and all settings are at their defaults. What each of the two "
        "statements adds at its peak hardly grows with the number of prompts: eight bytes are held for each custom_id."
    ),
    "scale": (
        "Short prompts through submit, wait and results, on a server that also refuses what exceeds the limit. Every "
        "custom_id comes back once, which is checked at the end of each run."
    ),
    "caps": (
        "A client that has sent two requests, with deadline_seconds at 3 in place of 30, and a server whose answers no "
        "honest one sends. What is told is the beginning of the sentence."
    ),
    "shell": (
        "mistral_batch_submit, and the table that the first table makes with the content of mistral_batch_results, by "
        "the shell's own timer. The local server's work for the create is in the times of the shell and of Python, not "
        "in those by hand, which run in Python, are as above and check nothing. Each process has done the same with "
        "one row or three before. The shell has the table, its helper process the SDK and the spool; the memory is "
        "each one's peak, all in all."
    ),
}
READING = (
    "Read the ratios. The strongest contender comes first: DuckDB by hand, that is COPY and read_json with the SDK for "
    "the API, which checks nothing. Loops are there too, as they are what people write. Above each table stands what "
    "the others leave out.\n\n"
    "The contenders of a line took turns on the same data in one run, each in its own process, which "
    "starts once the others' files are on the disk. The fastest of {repeats} runs counts, with the highest memory of "
    "all. Processor time is that of all threads; other load on the machine affects it less than the time on the clock. "
    "Memory added is the peak minus what the process held after its imports. The server is the local one, in its own "
    "process. Waiting for a job, and the call that creates it (in which the local server counts its requests), are "
    "left out where nothing else is said."
)
LINES = {
    "whole_loop": ("documented loop", "tab:red"),
    "whole_orjson": ("loop with orjson", "tab:orange"),
    "whole_by_hand": ("DuckDB by hand", "tab:green"),
    "whole_client": ("this package", "tab:blue"),
}
MEMORY_LINES = {"submit added": ("submit", "tab:green"), "results added": ("results", "tab:orange")}


def machine() -> str:
    """Name this machine by its cores and its memory."""
    gigabytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return f"{os.cpu_count()} cores, {gigabytes:.0f} GB of memory"


def versions() -> str:
    """Name the versions that the figures are for."""
    import platform
    from importlib.metadata import version

    names = ("duckdb", "mistralai", "pyarrow")
    return ", ".join([f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in names)])


def markdown(rows: Sequence[Row], repeats: int, *, plotted: bool) -> str:
    """Return the whole report."""
    text = [
        "# Benchmarks",
        "",
        f"Made by `make bench` on a machine with {machine()}; {versions()}.",
        "",
        READING.format(repeats=repeats),
    ]
    for case, title in TITLES.items():
        its_rows = [row for row in rows if row.case == case]
        if its_rows:
            text += ["", f"## {title}", "", *_about(case), *_table(its_rows)]
    if plotted:
        text += ["", "![Time per request, and memory, as the number of prompts grows](benchmarks.svg)"]
    return "\n".join(text) + "\n"


def added(report: str, rows: Sequence[Row]) -> str:
    """Return a report with the tables of these rows in it, each with the machine that it was made on; others stay."""
    for case, title in TITLES.items():
        its_rows = [row for row in rows if row.case == case]
        if not its_rows:
            continue
        made = f"Made apart, on a machine with {machine()}; {versions()}."
        section = "\n".join([f"## {title}", "", *_about(case), made, "", *_table(its_rows), ""])
        before, heading, rest = report.partition(f"## {title}\n")
        if not heading:
            before, heading, rest = report.rstrip("\n") + "\n\n", "", ""
        following = min((place for place in map(rest.find, ("\n## ", "\n![")) if place >= 0), default=len(rest))
        report = before + section + rest[following:]
    return report


def _about(case: str) -> list[str]:
    return [ABOUT[case], ""] if case in ABOUT else []


def _table(rows: Sequence[Row]) -> Iterable[str]:
    sized = rows[0].rows > 0 and rows[0].length > 0
    names = [*(("prompts", "bytes each") if sized else ()), *rows[0].cells]
    yield "| " + " | ".join(names) + " |"
    yield "|" + " ---: |" * len(names)
    for row in rows:
        size = (f"{row.rows:,}", f"{row.length:,}") if sized else ()
        yield "| " + " | ".join((*size, *row.cells.values())) + " |"


def plot(rows: Sequence[Row], path: Path) -> bool:
    """Draw each contender's time per request over the number of prompts, and the memory; False where that cannot be.

    That is where matplotlib is missing, or neither of the cases whole and memory was measured.
    """
    try:
        import matplotlib as mpl
    except ImportError:
        return False
    mpl.use("svg")
    from matplotlib import pyplot as plt

    timed = [row for row in rows if row.case == "whole"]
    grown = [row for row in rows if row.case == "memory"]
    lengths = sorted({row.length for row in timed})
    count = len(lengths) + bool(grown)
    if not count:
        return False
    figure, axes = plt.subplots(1, count, figsize=(5.5 * count, 4), squeeze=False)
    for length, axis in zip(lengths, axes[0], strict=False):
        _lines(axis, [row for row in timed if row.length == length], LINES, 1e6)
        axis.set(yscale="log", ylabel="µs per request", title=f"{length:,} bytes each")
    if grown:
        _lines(axes[0][-1], grown, MEMORY_LINES, 1e-6)
        axes[0][-1].set(
            ylim=0,
            ylabel="MB of memory added",
            title=f"{grown[0].length:,} bytes each, up to {max(row.rows for row in grown):,}",
        )
    for axis in axes[0]:
        axis.set(xscale="log", xlabel="prompts")
        axis.grid(visible=True, which="both", alpha=0.2)
        axis.legend()
    figure.tight_layout()
    figure.savefig(path)
    return True


def _lines(axis: Any, rows: Sequence[Row], lines: Mapping[str, tuple[str, str]], scale: float) -> None:
    for name, (label, color) in lines.items():
        points = sorted((row.rows, row.figures[name] * scale) for row in rows if name in row.figures)
        if points:
            axis.plot(*zip(*points, strict=True), "o-", label=label, color=color)
