"""What result lines are expected to hold: whatever is expected, the rows are the same."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import duckdb
import pytest
from support import ended_job, write_results

from duckdb_mistral.results import convert
from duckdb_mistral.results.convert import ResultFiles
from duckdb_mistral.results.expected import ANSWERS, ANYTHING, expectations

if TYPE_CHECKING:
    from pathlib import Path

CALL = [{"function": {"name": "look_up", "arguments": "{}"}}]
LINES = {
    "answers alone": {},
    "an error": {"error": {"message": "out of order"}},
    "an error that says nothing": {"error": {}},
    "a status of its own": {"status_code": 422, "body": {"detail": "too long"}},
    "a call of a tool": {"message": {"content": "", "tool_calls": CALL}},
    "a call of a tool beside a text": {"message": {"content": "wait", "tool_calls": CALL}},
    "chunks": {"message": {"content": [{"type": "text", "text": "in pieces"}]}},
    "a text like chunks": {"message": {"content": '[{"a": 1}]'}},
    "a long line": {"message": {"content": "a" * (5 << 20)}},
    "a longer line": {"message": {"content": "a" * (9 << 20)}},
}


def line(custom_id: str, how: dict[str, Any]) -> str:
    """Return a result line with what is odd about it."""
    body = {"model": "m", "choices": [{"finish_reason": "stop", "message": how.get("message", {"content": "hi"})}]}
    response = {"status_code": how.get("status_code", 200), "body": how.get("body", body)}
    return json.dumps({"custom_id": custom_id, "response": response, "error": how.get("error")}) + "\n"


def read(directory: Path, how: dict[str, Any], **report: Any) -> list[tuple[Any, ...]]:
    """Return what comes of a file of a thousand answers, of which one is odd; `report` is what the job counts."""
    directory.mkdir()
    answers, submitted = directory / "answers.jsonl", directory / "submitted.jsonl"
    answers.write_text("".join(line(str(number), how if number == 700 else {}) for number in range(1000)))
    submitted.write_text("".join(json.dumps({"custom_id": str(number), "body": {}}) + "\n" for number in range(1000)))
    target = directory / "results.parquet"
    files = ResultFiles(answers=(answers,), submitted=submitted)
    assert write_results(ended_job(1000, **report), files, target, partial=False).tally.clean
    with duckdb.connect() as engine:
        select = "SELECT custom_id, outcome, content, error, status_code, finish_reason, model"
        found: list[tuple[Any, ...]] = engine.execute(f"{select} FROM read_parquet('{target}') ORDER BY 1").fetchall()
    return found


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("how", LINES.values(), ids=LINES)
def test_the_same_rows(how: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, large: bool) -> None:
    """A job that wrongly counts no failure has the rows that it has where its counts promise errors."""
    monkeypatch.setattr(convert, "LARGE_BYTES", 0 if large else 1 << 60)
    assert read(tmp_path / "none", how) == read(tmp_path / "some", how, failed_requests=1)


def test_what_is_expected() -> None:
    """Only of a job that counts answers and no failure, answers alone are expected first."""
    assert expectations(ended_job(3)) == (ANSWERS, ANYTHING)
    assert expectations(ended_job(3, failed_requests=1)) == (ANYTHING,)
    assert expectations(ended_job(3, completed=0)) == (ANYTHING,)
    assert expectations(ended_job(3).evolve(report=None)) == (ANYTHING,)
    assert ANSWERS.keys() == ANYTHING.keys()
