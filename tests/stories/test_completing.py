"""Result files that lack, repeat or make up rows: every submitted custom_id comes out exactly once."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa
import pytest
from support import connect, ended_job, make_staging, submitted, write_results

from duckdb_mistral.errors import IncompleteResultsError
from duckdb_mistral.requests.spool import Spool
from duckdb_mistral.results.compare import Tally
from duckdb_mistral.results.convert import ResultFiles
from duckdb_mistral.results.strangers import counted
from duckdb_mistral.state.names import keys_path

if TYPE_CHECKING:
    from pathlib import Path

    from duckdb_mistral.emulator import Emulator


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


#: Two custom_ids for which DuckDB's hash() says the same.
SAME_HASH = ("order-01customer", "order-_5customd1")


def error(custom_id: str, message: str, status: int = 429) -> str:
    """Return a line of an error file."""
    response = {"status_code": status, "body": {"message": message}}
    return json.dumps({"custom_id": custom_id, "response": response, "error": None}) + "\n"


@pytest.mark.fault("F29")
def test_answer_and_error(tmp_path: Path) -> None:
    """Of an answer and an error of one custom_id the answer counts, in whichever file, and however many errors."""
    output, errors, target = (tmp_path / name for name in ("output.jsonl", "errors.jsonl", "results.parquet"))
    cut = answer("c", "cut").replace('"stop"', '"length"')
    output.write_text(answer("a", "one") + error("b", "busy") + cut + answer("d", "four") + "nonsense\n")
    errors.write_text(error("a", "busy") + error("a", "busy again") + answer("b", "two") + error("c", "busy") + cut)
    files = ResultFiles(answers=(output, errors), submitted=spooled(tmp_path, "a", "b", "c", "d"))
    write_results(ended_job(4), files, target, partial=False)
    found = read(target)
    assert [row[:3] for row in found] == [
        ("a", "ok", "one"),
        ("b", "ok", "two"),
        ("c", "truncated", "cut"),
        ("d", "ok", "four"),
    ]
    assert [row[3] is None for row in found] == [True, True, False, True]


@pytest.mark.fault("F29")
def test_two_errors(tmp_path: Path) -> None:
    """Two different errors of one custom_id are both told; the same one twice is told once."""
    output, target = tmp_path / "output.jsonl", tmp_path / "results.parquet"
    output.write_text(error("a", "busy") + error("a", "no such model", 404) + error("b", "busy") * 2)
    write_results(
        ended_job(2), ResultFiles(answers=(output,), submitted=spooled(tmp_path, "a", "b")), target, partial=False
    )
    assert read(target) == [("a", "error", None, "busy; no such model"), ("b", "error", None, "busy")]


@pytest.mark.fault("F52")
@pytest.mark.parametrize("with_ids", [True, False], ids=["ids kept", "ids lost"])
@pytest.mark.parametrize("large", [True, False], ids=["large", "small"])
def test_ids_of_one_hash(tmp_path: Path, large: bool, with_ids: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stranger's answer is not taken for a lost one, although the hash of both custom_ids is the same."""
    sent, stranger = SAME_HASH
    with duckdb.connect() as engine:
        assert engine.execute("SELECT hash($1) = hash($2)", SAME_HASH).fetchone() == (True,)
    monkeypatch.setattr("duckdb_mistral.results.convert.LARGE_BYTES", 0 if large else 1 << 60)
    output, target = tmp_path / "output.jsonl", tmp_path / "results.parquet"
    output.write_text(answer("a", "one") + answer(stranger, "two"))
    requests = spooled(tmp_path, "a", sent)
    if not with_ids:
        keys_path(requests).unlink()
    files = ResultFiles(answers=(output,), submitted=requests)
    with pytest.raises(IncompleteResultsError, match=f'hold 1 of the 2 .* never sent: "{stranger}"'):
        write_results(ended_job(2), files, target, partial=False)
    written = write_results(ended_job(2), files, target, partial=True)
    assert written.tally == Tally(held=1, missing=1, unknown=1, repeated=0)
    assert [row[:3] for row in read(target)] == [("a", "ok", "one"), (sent, "missing", None)]


@pytest.mark.fault("F52")
def test_requests_that_repeat_an_id(tmp_path: Path) -> None:
    """Where another program sent one custom_id twice, two answers of another one are not taken for whole results."""
    output, target = tmp_path / "output.jsonl", tmp_path / "results.parquet"
    output.write_text(answer("a", "one") + answer("b", "two") * 2)
    requests = tmp_path / "requests.jsonl"
    requests.write_text("".join(json.dumps({"custom_id": name, "body": {}}) + "\n" for name in "aab"))
    files = ResultFiles(answers=(output,), submitted=requests)
    written = write_results(ended_job(3, completed=2), files, target, partial=False)
    assert written.tally.repeated == 1
    assert [row[:3] for row in read(target)] == [("a", "ok", "one"), ("b", "ok", "two")]


@pytest.mark.fault("F29")
def test_strangers_are_named(tmp_path: Path) -> None:
    """Answers to what was never sent are named, a few of them, beside the custom_id that is nearly the same."""
    output, target = tmp_path / "output.jsonl", tmp_path / "results.parquet"
    ids = ["caf\u00e9", "Order", "b", "1"]
    came = ["cafe\u0301", "order ", "b\0", "\u6771", *(f"stranger {number}" for number in range(10))]
    output.write_text("".join(answer(name, "x") for name in came))
    files = ResultFiles(answers=(output,), submitted=spooled(tmp_path, *ids))
    written = write_results(ended_job(4), files, target, partial=True)
    assert [row[:2] for row in read(target)] == [(name, "missing") for name in sorted(ids)]
    assert written.strangers == (
        "The result files of job job hold 14 answers to custom_ids that were never sent: "
        r'"cafe\u0301" ("caf\u00e9" was sent), "order " ("Order" was sent), "b\u0000", '
        '"stranger 0", "stranger 1" and 9 more.'
    )
    assert counted(written.strangers) == 14
    assert read(target)[0][3].endswith(written.strangers)


@pytest.mark.fault("F29")
def test_strangers_in_status(emulator: Emulator, home: Path) -> None:
    """Once results were read, the status counts the answers that nobody asked for, and names them."""
    with connect(emulator, home) as con:
        make_staging(con, 2)
        submission_id = submitted(con)
        con.execute("FROM mistral_batch_wait($id)", {"id": submission_id})
        ((output,),) = con.execute("SELECT output_file FROM mistral_batch_status($1)", [submission_id]).fetchall()
        data = "".join(answer(name, "x") for name in ("0", "stranger", "1", "another"))
        told = {"status": 200, "headers": {"content-type": "application/octet-stream"}, "body": data}
        emulator.faults({"method": "GET", "path": f"/v1/files/{output}/content"} | told)
        results = "SELECT custom_id, outcome FROM mistral_batch_results($1) ORDER BY ALL"
        assert con.execute(results, [submission_id]).fetchall() == [("0", "ok"), ("1", "ok")]
        ((errors,),) = con.execute("SELECT errors FROM mistral_batch_status($1)", [submission_id]).fetchall()
    (told,) = errors
    assert told["count"] == 2
    assert told["message"].endswith('2 answers to custom_ids that were never sent: "another", "stranger".')
