"""What result lines are expected to hold: answers alone where the job counts no error, and else anything.

DuckDB plans and runs the first in less time. A line that holds something else ends the statement, and the next one is
tried.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from duckdb_mistral.results.reasons import is_error, told

if TYPE_CHECKING:
    from duckdb_mistral.jobs.job import Job

_END = "error('this line needs a closer look')"
#: A text that begins like a list of chunks may be one, which only the response's JSON would tell.
_MAY_BE_CHUNKS = "text LIKE '[{%' OR text = '[]'"
#: Pieces of templates.
ANYTHING = {
    "problem": "NULL",
    # Most lines have no error, and are told from the others by that alone.
    "said": "CASE WHEN error IS NULL THEN CASE WHEN status_code >= 400 THEN body END "
    f"WHEN {is_error('error')} THEN error WHEN status_code >= 400 THEN body END",
    "told": told("said"),
    "large_problem": "NULL",
    "large_content": f"CASE WHEN status_code >= 400 OR {_MAY_BE_CHUNKS} THEN {_END} "
    # A call of a tool comes with an empty text, or with none.
    r"WHEN NOT calls THEN text WHEN trim(text, E' \n') <> '' THEN text END",
    # Longer lines are read another way: with the smaller buffers that go with this, others are read in less time.
    "longest_line": "8388608",
}
ANSWERS = {
    "problem": f"CASE WHEN error IS NOT NULL OR status_code >= 400 THEN {_END} END",
    "said": "NULL::JSON",
    "told": "NULL",
    "large_problem": f"CASE WHEN error IS NOT NULL OR status_code >= 400 OR calls OR {_MAY_BE_CHUNKS} THEN {_END} END",
    "large_content": "text",
    "longest_line": "4194304",
}


def expectations(job: Job) -> tuple[dict[str, str], ...]:
    """Return the pieces to read a job's lines with, one after the other until none of the lines ends the statement."""
    none_failed = job.report is not None and job.report.completed_requests and not job.report.failed_requests
    return (ANSWERS, ANYTHING) if none_failed else (ANYTHING,)
