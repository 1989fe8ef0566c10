"""Result files that lack, repeat or make up rows: every submitted custom_id comes out exactly once."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa
import pytest
from support import ended_job, write_results

from duckdb_mistral.errors import IncompleteResultsError
from duckdb_mistral.results import ResultFiles, Tally
from duckdb_mistral.spool import Spool, keys_path

if TYPE_CHECKING:
    from pathlib import Path


def answer(custom_id: str | None, content: str) -> str:
    """Return a result line."""
    body = {"model": "m", "choices": [{"finish_reason": "stop", "message": {"content": content}}]}
    return json.dumps({"custom_id": custom_id, "response": {"status_code": 200, "body": body}, "error": None}) + "\n"


def spooled(directory: Path, *custom_ids: str) -> Path:
    """Return the input file that asked for some custom_ids."""
    spool = Spool(directory / "spool", max_requests=1000, max_bytes=1_000_000)
    spool.write(
        pa.array([json.dumps({"custom_id": name, "body": {}}) + "\n" for name in custom_ids]),
        pa.array(custom_ids),
        pa.array(["0"] * len(custom_ids)),
    )
    (part,) = spool.finish()
    return part.path


def read(path: Path) -> list[tuple[Any, ...]]:
    """Return custom_id, outcome, content and error of a Parquet file, in order."""
    with duckdb.connect() as engine:
        return engine.execute(
            f"SELECT custom_id, outcome, content, error FROM read_parquet('{path}') ORDER BY custom_id"
        ).fetchall()


@pytest.mark.parametrize("with_ids", [True, False], ids=["ids kept", "ids lost"])
def test_every_submitted_id_comes_out_once(tmp_path: Path, with_ids: bool) -> None:
    """Missing, made-up, repeated and unnamed rows are told or folded; the custom_ids are those submitted."""
    output, target = tmp_path / "output.jsonl", tmp_path / "results.parquet"
    lines = [answer("a", "one"), answer("b", "two"), answer("b", "two"), answer("c", "three"), answer("c", "3")]
    output.write_text("".join([*lines, answer("stranger", "four"), answer(None, "five")]))
    requests = spooled(tmp_path, "a", "b", "c", "d")
    if not with_ids:
        keys_path(requests).unlink()
    written = write_results(
        ended_job(4, completed=3), ResultFiles(answers=(output,), submitted=requests), target, partial=False
    )
    assert written.tally == Tally(held=3, missing=1, unknown=2, repeated=2)
    a, b, c, d = read(target)
    assert (a, b) == (("a", "ok", "one", None), ("b", "ok", "two", None))
    assert c[:2] == ("c", "error")
    assert c[3] == "the result files hold 2 different answers for this custom_id"
    strangers = 'hold 2 answers to custom_ids that were never sent: "stranger", one without a custom_id.'
    assert d == ("d", "missing", None, f"no result: the job ended SUCCESS. The result files of job job {strangers}")


def requests_of(directory: Path, *custom_ids: str | None) -> Path:
    """Return the input file of another program, whose custom_ids may be null."""
    path = directory / "submitted.jsonl"
    path.write_text("".join(json.dumps({"custom_id": name, "body": {}}) + "\n" for name in custom_ids))
    return path


@pytest.mark.parametrize(
    ("submitted", "answers", "expected", "tally"),
    [
        (
            ["a", None, "z"],
            [("a", "one"), (None, "two")],
            [("a", "one"), ("z", None), (None, "two")],
            Tally(held=2, missing=1, unknown=0, repeated=0),
        ),
        (
            ["a", None, None, None],
            [(None, "two"), ("a", "one"), (None, "three")],
            [("a", "one"), (None, "three"), (None, "two"), (None, None)],
            Tally(held=3, missing=1, unknown=0, repeated=0),
        ),
        (
            [None, "z", None],
            [(None, "two"), (None, "two")],
            [("z", None), (None, "two"), (None, "two")],
            Tally(held=2, missing=1, unknown=0, repeated=0),
        ),
        ([None, None], [], [(None, None), (None, None)], Tally(held=0, missing=2, unknown=0, repeated=0)),
        (
            [None, "z"],
            [(None, "two"), (None, "two"), ("x", "no")],
            [("z", None), (None, "two")],
            Tally(held=1, missing=1, unknown=2, repeated=0),
        ),
    ],
)
def test_requests_without_custom_id(
    tmp_path: Path,
    submitted: list[str | None],
    answers: list[tuple[str | None, str]],
    expected: list[tuple[str | None, str | None]],
    tally: Tally,
) -> None:
    """Of another program's requests without a custom_id as many rows come out as were sent, answered or missing."""
    output, target = tmp_path / "output.jsonl", tmp_path / "results.parquet"
    output.write_text("".join(answer(*one) for one in answers))
    written = write_results(
        ended_job(len(submitted), completed=tally.held, status="TIMEOUT_EXCEEDED").evolve(submission_id=None),
        ResultFiles(answers=(output,), submitted=requests_of(tmp_path, *submitted)),
        target,
        partial=False,
    )
    assert written.tally == tally
    found = [(custom_id, content) for custom_id, _, content, _ in read(target)]
    assert sorted(found, key=repr) == sorted(expected, key=repr)


def test_answers_without_custom_id_of_requests_that_are_gone(tmp_path: Path) -> None:
    """Where the requests cannot be had, each answer without a custom_id comes out, and a line that is not JSON not."""
    output, target = tmp_path / "output.jsonl", tmp_path / "results.parquet"
    output.write_text(answer("a", "one") + answer(None, "two") + answer(None, "two") + "not JSON\n")
    written = write_results(ended_job(3), ResultFiles(answers=(output,), submitted=None), target, partial=False)
    assert written.tally == Tally(held=3, missing=0, unknown=1, repeated=0)
    assert [row[0:3:2] for row in read(target)] == [("a", "one"), (None, "two"), (None, "two")]


def test_ids_of_another_number_than_the_job_has_are_not_trusted(tmp_path: Path) -> None:
    """Where the custom_ids kept are not as many as the job's requests, the requests themselves are read."""
    output, target = tmp_path / "output.jsonl", tmp_path / "results.parquet"
    output.write_text(answer("a", "one") + answer("b", "two"))
    requests = spooled(tmp_path, "a")
    with requests.open("a") as file:
        file.write(json.dumps({"custom_id": "b", "body": {}}) + "\n")
    written = write_results(
        ended_job(2, completed=2), ResultFiles(answers=(output,), submitted=requests), target, partial=False
    )
    assert written.tally == Tally(held=2, missing=0, unknown=0, repeated=0)


def test_fewer_rows_than_promised_are_kept_only_as_partial(tmp_path: Path) -> None:
    """Files that hold less than the counts promise are refused, and nothing is written, unless partial is asked for."""
    output, target = tmp_path / "output.jsonl", tmp_path / "results.parquet"
    output.write_text(answer("a", "one"))
    files = ResultFiles(answers=(output,), submitted=spooled(tmp_path, "a", "b"))
    with pytest.raises(IncompleteResultsError, match="hold 1 of the 2 rows"):
        write_results(ended_job(2, completed=2), files, target, partial=False)
    assert not target.exists()
    write_results(ended_job(2, completed=2), files, target, partial=True)
    assert [row[:2] for row in read(target)] == [("a", "ok"), ("b", "missing")]


@pytest.mark.parametrize(
    ("content", "output"),
    [
        ('{"a": 1}', '{"a": 1}'),
        (' \n[1, "two"]', ' \n[1, "two"]'),
        ('"text"', '"text"'),
        ("-1.5e3", "-1.5e3"),
        ("true", "true"),
        (" null ", " null "),
        ("true story", None),
        ("{not json", None),
        ("3 apples", None),
        ("prose", None),
        ("", None),
    ],
)
def test_output_is_json_where_the_content_is(tmp_path: Path, content: str, output: str | None) -> None:
    """The column output holds content that is JSON, whatever its kind, and is NULL for all else."""
    answers, target = tmp_path / "output.jsonl", tmp_path / "results.parquet"
    answers.write_text(answer("a", content))
    files = ResultFiles(answers=(answers,), submitted=spooled(tmp_path, "a"))
    write_results(ended_job(1, completed=1), files, target, partial=False)
    with duckdb.connect() as engine:
        found = engine.execute(f"SELECT content, output::VARCHAR FROM read_parquet('{target}')").fetchone()
    assert found == (content, output)
