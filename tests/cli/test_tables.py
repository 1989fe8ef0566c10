"""Rows as a person sees them on a terminal."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

import duckdb
import pytest

from duckdb_mistral.cli.tables import show

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


COST = f"""SELECT '{JOB}' AS job_id, 1 AS part, 'mistral-small-latest' AS model, 10 AS answers, 30 AS prompt_tokens,
40 AS completion_tokens, '0.000002' AS cost, NULL AS note"""


@pytest.mark.parametrize("told", [80, 60], indirect=True)
def test_more_columns_than_there_is_room(told: Callable[[str], list[list[str]]]) -> None:
    """Where a terminal has no room for all columns, each row takes a line per column, with its id whole."""
    lines = told(f"{COST} UNION ALL {COST}")
    assert lines.count(["job_id", JOB]) == 2
    assert lines.count(["completion_tokens", "40"]) == 2
    assert lines.count([]) == 1
    assert not [line for line in lines if line[:1] == ["note"]]


@pytest.mark.parametrize("told", [80], indirect=True)
@pytest.mark.parametrize("status", ["SUCCESS", "CANCELLED", "TIMEOUT_EXCEEDED", "CANCELLATION_REQUESTED"])
@pytest.mark.parametrize("parts", ["1", "3"])
def test_a_status(told: Callable[[str], list[list[str]]], status: str, parts: str) -> None:
    """At 80 columns the id of a job is whole whatever its status, and so is what failed."""
    words = [
        word
        for line in told(
            f"SELECT '{SUBMISSION}' AS submission_id, '{JOB}' AS job_id, 1 + range AS part, '{status}' AS status, "
            "'mistral-small-latest' AS model, '100000/100000' AS requests, 99999 AS failed "
            f"FROM range({parts})"
        )
        for word in line
    ]
    for word in (SUBMISSION, status, "100000/100000", "99999"):
        assert words.count(word) == int(parts)


@pytest.mark.parametrize("told", [80], indirect=True)
def test_part_of_one(told: Callable[[str], list[list[str]]]) -> None:
    """The number of the part goes first where there is one part only."""
    (header, row, *_) = told(f"{STATUS.replace('a-model', 'mistral-small-latest')}, 1 AS part, 'reused' AS reused")
    assert header == ["id", "status", "model", "reused"]
    assert row == [SUBMISSION, "SUCCESS", "mistral-small-latest", "reused"]


def test_the_first_rows(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal shows the first rows of many, and how many more there are; a pipe and a file get all."""
    rows = "SELECT range AS number FROM range(250)"
    for form in ("table", "csv"):
        assert show(duckdb.connect(), rows, None, form, most=100) == 250
        assert capsys.readouterr() == (
            "\n".join([f"{number:<6}" if form == "table" else str(number) for number in ["number", *range(250)]])
            + "\n",
            "",
        )
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert show(duckdb.connect(), rows, None, "table", most=100) == 250
    printed = capsys.readouterr()
    assert len(printed.out.splitlines()) == 101
    assert printed.err == "150 more of 250 rows. --format csv or jsonl prints all of them.\n"
