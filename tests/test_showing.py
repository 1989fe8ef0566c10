"""Rows as a person sees them on a terminal."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

import duckdb
import pytest

from duckdb_mistral.showing import show

if TYPE_CHECKING:
    from collections.abc import Callable

SUBMISSION, JOB = "0b4ef6f6-4bb6-4e7f-abb2-42f6b80fe329", "4cbfcab6-6979-49bc-8354-2e618cb3e6f0"
STATUS = f"SELECT '{SUBMISSION}' AS submission_id, '{JOB}' AS job_id, 'SUCCESS' AS status, 'a-model' AS model"


@pytest.fixture
def told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Callable[[str], list[list[str]]]:
    """Return what shows the rows of a SELECT on a terminal of so many columns: the words of each line."""
    monkeypatch.setenv("COLUMNS", str(request.param))
    monkeypatch.setenv("TERM", "xterm")

    def shown(select: str) -> list[list[str]]:
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
        show(duckdb.connect(), select, None, "table")
        plain = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
        return [line.split() for line in plain.splitlines()]

    return shown


@pytest.mark.parametrize("told", [120], indirect=True)
def test_both_ids_where_there_is_room(told: Callable[[str], list[list[str]]]) -> None:
    """A wide terminal shows the submission and the job."""
    assert told(STATUS) == [["submission_id", "job_id", "status", "model"], [SUBMISSION, JOB, "SUCCESS", "a-model"]]


@pytest.mark.parametrize("told", [80, 60], indirect=True)
def test_one_whole_id_where_there_is_little(told: Callable[[str], list[list[str]]]) -> None:
    """A narrow terminal shows one id of each row, whole: the job's where there is no submission."""
    assert told(f"{STATUS} UNION ALL SELECT NULL, '{JOB}', 'FAILED', 'b'") == [
        ["id", "status", "model"],
        [SUBMISSION, "SUCCESS", "a-model"],
        [JOB, "FAILED", "b"],
    ]


@pytest.mark.parametrize("told", [30, 20], indirect=True)
def test_no_room_for_an_id(told: Callable[[str], list[list[str]]]) -> None:
    """A terminal without room for one id shows all of it on several lines."""
    lines = told(f"SELECT '{SUBMISSION}' AS submission_id, '{JOB}' AS job_id, 1 AS part")
    assert "".join(line[0] for line in lines) == f"id{SUBMISSION}"


@pytest.mark.parametrize("told", [40], indirect=True)
def test_long_text(told: Callable[[str], list[list[str]]]) -> None:
    """Long text takes several lines, and nothing of it is left out."""
    words = [f"word{number}" for number in range(30)]
    lines = told(f"SELECT 7 AS requests, '{' '.join(words)}' AS content")
    assert [word for line in lines for word in line] == ["requests", "content", "7", *words]
    assert len(lines) > 3


@pytest.mark.parametrize("shown", ["table", "csv", "jsonl"])
def test_control_characters(shown: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer's control characters reach no terminal, in any format."""
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    show(duckdb.connect(), "SELECT 'a' || chr(27) || ']0;b' || chr(7) || chr(155) || '2J' AS content", None, shown)
    printed = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)  # what rich makes bold
    assert not set(printed) & {"\x1b", "\x07", "\x9b"}
    assert "]0;b" in printed


def test_exact_where_nobody_looks(capfd: pytest.CaptureFixture[str]) -> None:
    """Rows that go into a file or a pipe are exact."""
    show(duckdb.connect(), "SELECT 'a' || chr(27) || chr(155) AS content", None, "csv")
    assert capfd.readouterr().out == "content\na\x1b\x9b\n"
