"""Measure and tell: `python -m benchmarks`, over an hour on two cores; `--help` shows how to measure less."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from tempfile import gettempdir

from benchmarks import cases, job_cases, team_cases
from benchmarks.cases import Row, Sizes
from benchmarks.report import added, markdown, plot

CASES = cases.CASES | job_cases.CASES | team_cases.CASES
DOCS = Path(__file__).resolve().parent.parent / "docs"


def main() -> None:
    """Run the cases, print the tables, and keep them in docs/benchmarks.md."""
    given = _arguments()
    sizes = Sizes(
        rows=tuple(given.rows),
        lengths=tuple(given.bytes),
        repeats=given.repeats,
        memory_rows=tuple(given.memory_rows),
        scratch=given.scratch,
        most_bytes=given.most_bytes,
    )
    rows: list[Row] = []
    for name in given.cases:
        for row in CASES[name](sizes):
            rows.append(row)
            said = ", ".join(f"{column}: {cell}" for column, cell in row.cells.items())
            print(f"{row.case} {row.rows:,} of {row.length:,}: {said}", file=sys.stderr, flush=True)
    plotted = False
    if given.write:
        given.write.mkdir(parents=True, exist_ok=True)
        plotted = plot(rows, given.write / "benchmarks.svg")
    report = markdown(rows, given.repeats, plotted=plotted)
    print(report)
    if given.add:
        kept = given.add / "benchmarks.md"
        kept.write_text(added(kept.read_text(encoding="utf-8"), rows), encoding="utf-8")
    if given.write:
        (given.write / "benchmarks.md").write_text(report, encoding="utf-8")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        epilog="The cases:\n" + "\n".join(f"  {name:9}{case.__doc__}" for name, case in CASES.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES), help="all by default")
    parser.add_argument(
        "--rows",
        nargs="+",
        type=int,
        default=[100, 1_000, 10_000, 100_000, 1_000_000],
        help="numbers of prompts for the cases whole, build, read and shell; a hundred to a million by default",
    )
    parser.add_argument(
        "--bytes", nargs="+", type=int, default=[300, 8_000], help="lengths of the prompts; 300 and 8,000 by default"
    )
    parser.add_argument("--repeats", type=int, default=3, help="how often each contender runs; the quickest counts")
    parser.add_argument(
        "--memory-rows",
        nargs="+",
        type=int,
        default=[100_000, 300_000, 1_000_000],
        help="numbers of prompts for the case memory, of the longest length; a million take 50 GB of disk",
    )
    parser.add_argument(
        "--most-bytes",
        type=int,
        default=1_000_000_000,
        help="leave out larger sizes, except in the cases memory and scale; one gigabyte by default",
    )
    parser.add_argument(
        "--scratch",
        type=Path,
        default=Path(gettempdir()),
        help="where the files go: up to seven times the prompts' size",
    )
    parser.add_argument(
        "--write", nargs="?", type=Path, const=DOCS, help="keep the tables in this directory; docs by default"
    )
    parser.add_argument(
        "--add", nargs="?", type=Path, const=DOCS, help="put the tables among those kept in this directory; docs again"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
