"""From result files to rows that can be trusted: real samples, and every kind of bad line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pytest
from support import ended_job, write_results

from duckdb_mistral.duck.engine import own_engine
from duckdb_mistral.duck.jsonl import BATCH_BYTES
from duckdb_mistral.errors import IncompleteResultsError
from duckdb_mistral.results import convert
from duckdb_mistral.results.columns import COLUMNS
from duckdb_mistral.results.compare import Tally
from duckdb_mistral.results.convert import ResultFiles

if TYPE_CHECKING:
    from duckdb_mistral.jobs.job import Job

SAMPLES = Path(__file__).parents[1] / "data" / "samples"


def line(custom_id: Any, content: Any = "hi", **body: Any) -> bytes:
    """Return one result line, as the API writes it."""
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content}}
    answer = {"id": "x", "model": "m", "usage": {"prompt_tokens": 1, "total_tokens": 3, "completion_tokens": 2}}
    document = {
        "id": "batch",
        "custom_id": custom_id,
        "response": {"status_code": 200, "body": answer | {"choices": [choice]} | body},
        "error": None,
    }
    return json.dumps(document).encode() + b"\n"


def read(
    directory: Path, files: list[bytes], submitted: list[str] | None, *, of: Job | None = None, partial: bool = False
) -> tuple[list[dict[str, Any]], Tally]:
    """Write the files and the submitted custom_ids, read them as results, and return rows and tally."""
    paths = [directory / f"answers-{number}.jsonl" for number in range(len(files))]
    for path, data in zip(paths, files, strict=True):
        path.write_bytes(data)
    known = None
    if submitted is not None:
        known = directory / "submitted.jsonl"
        requests = [json.dumps({"custom_id": custom_id, "body": {}}) + "\n" for custom_id in submitted]
        known.write_text("".join(requests), encoding="utf-8")
    target = directory / "results.parquet"
    written = write_results(
        of or ended_job(len(submitted or ())),
        ResultFiles(answers=tuple(paths), submitted=known),
        target,
        partial=partial,
    )
    return rows_of(target), written.tally


def rows_of(target: Path) -> list[dict[str, Any]]:
    """Return the rows of a results file, ordered by custom_id."""
    with duckdb.connect() as engine:
        result = engine.execute("FROM read_parquet($path) ORDER BY custom_id", {"path": str(target)})
        names = [column[0] for column in result.description or ()]
        return [dict(zip(names, row, strict=True)) for row in result.fetchall()]


def outcomes(found: list[dict[str, Any]]) -> list[tuple[str, str, str | None]]:
    """Return what matters most of each row."""
    return [(row["custom_id"], row["outcome"], row["content"]) for row in found]


# Real lines


def test_real_chat_results(tmp_path: Path) -> None:
    """Real result lines of a chat job come out with their text, their tokens and their end."""
    data = (SAMPLES / "chat.result.jsonl").read_bytes()
    found, tally = read(tmp_path, [data], ["0", "1", "2"])
    assert tally == Tally(held=3, missing=0, unknown=0, repeated=0)
    for row, text in zip(found, sorted(data.splitlines()), strict=True):
        document = json.loads(text)
        matching = next(row for row in found if row["custom_id"] == document["custom_id"])
        body = document["response"]["body"]
        choice = body["choices"][0]
        assert matching["content"] == choice["message"]["content"]
        assert matching["finish_reason"] == choice["finish_reason"]
        assert matching["outcome"] == ("truncated" if choice["finish_reason"] == "length" else "ok")
        assert (matching["prompt_tokens"], matching["completion_tokens"], matching["total_tokens"]) == (
            body["usage"]["prompt_tokens"],
            body["usage"]["completion_tokens"],
            body["usage"]["total_tokens"],
        )
        assert (matching["model"], matching["status_code"]) == (body["model"], 200)
        assert (matching["error"] is None) == (matching["outcome"] == "ok")
        assert json.loads(matching["response"]) == body
        assert (row["job_id"], row["submission_id"], row["reused"]) == ("job", "submission", False)


def test_real_structured_results(tmp_path: Path) -> None:
    """Real structured answers come out as JSON in the column output."""
    found, _ = read(tmp_path, [(SAMPLES / "structured.result.jsonl").read_bytes()], ["0", "1", "2"])
    assert [row["outcome"] for row in found] == ["ok"] * 3
    assert [json.loads(row["output"]) for row in found] == [json.loads(row["content"]) for row in found]


def test_columns_and_types(tmp_path: Path) -> None:
    """The file has the contract's columns, in order, and is for its owner alone."""
    read(tmp_path, [line("1")], ["1"])
    target = tmp_path / "results.parquet"
    with duckdb.connect() as engine:
        described = engine.execute("DESCRIBE FROM read_parquet($path)", {"path": str(target)}).fetchall()
    assert [(name, kind) for name, kind, *_ in described] == list(COLUMNS.items())
    assert target.stat().st_mode & 0o777 == 0o600
    assert {path.name for path in tmp_path.iterdir()} <= {
        "answers-0.jsonl",
        "submitted.jsonl",
        "results.parquet",
        "spill",
    }


# What an answer may be

ANSWERS: dict[str, tuple[bytes, str, str | None, str | None]] = {
    "text": (line("1", "hi"), "ok", "hi", None),
    "an empty text": (line("1", ""), "ok", "", None),
    "hard text": (line("1", "é\u2028\u0085\n\"'\\\U0001f600\x01"), "ok", "é\u2028\u0085\n\"'\\\U0001f600\x01", None),
    "text like a list": (line("1", "[1] see below"), "ok", "[1] see below", None),
    "text that is a JSON list": (line("1", '[{"type":"text","text":"x"}]'), "ok", '[{"type":"text","text":"x"}]', None),
    "text null": (line("1", "null"), "ok", "null", None),
    "chunks": (
        line("1", [{"type": "thinking", "thinking": []}, {"type": "text", "text": "a"}, {"type": "text", "text": "b"}]),
        "ok",
        "ab",
        None,
    ),
    "length": (
        line("1", choices=[{"finish_reason": "length", "message": {"content": "cut"}}]),
        "truncated",
        "cut",
        "the model ran out of tokens after 2 of them (finish_reason length)",
    ),
    "tool calls": (
        line("1", choices=[{"finish_reason": "tool_calls", "message": {"content": None, "tool_calls": [{"id": "a"}]}}]),
        "ok",
        None,
        None,
    ),
    "no choices": (line("1", choices=[]), "error", None, "the response holds no answer"),
    "null content": (line("1", None), "error", None, "the response holds no answer"),
    "finish_reason error": (
        line("1", choices=[{"finish_reason": "error", "message": {"content": "x"}}]),
        "error",
        "x",
        "the model ended with finish_reason error",
    ),
    "a status of 400": (
        b'{"custom_id":"1","response":{"status_code":400,"body":{"message":"bad input"}},"error":null}\n',
        "error",
        None,
        "bad input",
    ),
    "a status without words": (
        b'{"custom_id":"1","response":{"status_code":500,"body":null},"error":null}\n',
        "error",
        None,
        "HTTP 500",
    ),
    "an error": (b'{"custom_id":"1","response":null,"error":{"message":"too long"}}\n', "error", None, "too long"),
    "an error as text": (b'{"custom_id":"1","error":"too long"}\n', "error", None, "too long"),
    "nothing": (b'{"custom_id":"1"}\n', "error", None, "the result line holds no response"),
    "a null response": (b'{"custom_id":"1","response":null}\n', "error", None, "the result line holds no response"),
    "an integer custom_id": (line(1, "hi"), "ok", "hi", None),
}


@pytest.mark.parametrize(("data", "outcome", "content", "error"), ANSWERS.values(), ids=ANSWERS)
@pytest.mark.fault("F31")
def test_answer(tmp_path: Path, data: bytes, outcome: str, content: str | None, error: str | None) -> None:
    """Each kind of answer has its outcome, its text and its error."""
    (row,), _ = read(tmp_path, [data], ["1"])
    assert (row["custom_id"], row["outcome"], row["content"], row["error"]) == ("1", outcome, content, error)


# Bad lines: each is told, and no other is lost

GOOD = line("1", "first") + line("3", "third")
NOT_JSON = "its result line is not valid JSON"
BAD: dict[str, tuple[bytes, str, str | None]] = {
    "a cut line": (line("2")[:-20] + b"\n", "error", NOT_JSON),
    "no JSON": (b'nonsense "custom_id": "2"\n', "error", NOT_JSON),
    "invalid UTF-8": (line("2", "x").replace(b'"x"', b'"\xff\xfe"'), "ok", None),
    "a lone surrogate": (line("2", "x").replace(b'"x"', b'"\\ud800"'), "ok", None),
    "duplicate keys": (line("2").replace(b'"error"', b'"id": "again", "error"'), "ok", None),
    "a line without an id": (b'{"response": null}\n' + line("2"), "ok", None),
    "empty lines": (b"\n\r\n  \n" + line("2"), "ok", None),
}


@pytest.mark.parametrize(("data", "outcome", "error"), BAD.values(), ids=BAD)
@pytest.mark.fault("F30")
def test_bad_line(tmp_path: Path, data: bytes, outcome: str, error: str | None) -> None:
    """A bad line becomes the outcome of its own row, and the others are what they are."""
    found, _ = read(tmp_path, [line("1", "first") + data + line("3", "third")], ["1", "2", "3"])
    assert outcomes(found)[0] == ("1", "ok", "first")
    assert outcomes(found)[2] == ("3", "ok", "third")
    assert found[1]["outcome"] == outcome
    assert error is None or found[1]["error"].startswith(error)
    assert len(found) == 3


@pytest.mark.parametrize("custom_id", ['a"1', "back\\slash", "é\n", "\U0001f600", "plain"])
@pytest.mark.fault("F30")
def test_id_of_a_bad_line(tmp_path: Path, custom_id: str) -> None:
    """A bad line is its row's outcome also where the custom_id is written with escapes."""
    found, _ = read(tmp_path, [line("1", "first") + line(custom_id)[:-20] + b"\n"], ["1", custom_id])
    assert {(row["custom_id"], row["outcome"]) for row in found} == {("1", "ok"), (custom_id, "error")}


def test_number_that_json_does_not_have(tmp_path: Path) -> None:
    """A NaN, which some readers take and some do not, costs no other row, and is told once."""
    odd = line("2").replace(b'"index": 0', b'"index": NaN')
    found, _ = read(tmp_path, [line("1", "first") + odd + line("3", "third")], ["1", "2", "3"])
    assert [(row["custom_id"], row["content"]) for row in found if row["custom_id"] != "2"] == [
        ("1", "first"),
        ("3", "third"),
    ]
    assert [row["outcome"] in ("ok", "error") for row in found if row["custom_id"] == "2"] == [True]


@pytest.mark.parametrize(
    ("before", "after", "joined"),
    [
        (b"\xef\xbb\xbf", b"", b"\n"),
        (b"", b"", b"\r\n"),
        (b"", b"\n\n", b"\n"),
        (b"\xef\xbb\xbf", b"", b"\r\n"),
    ],
    ids=["byte order mark", "CRLF", "blank lines at the end", "both"],
)
@pytest.mark.fault("F30")
def test_odd_files(tmp_path: Path, before: bytes, after: bytes, joined: bytes) -> None:
    """Byte order marks, CRLF, and a last line with or without its newline change nothing."""
    lines = [line(str(number), f"text {number}").rstrip() for number in range(3)]
    found, tally = read(tmp_path, [before + joined.join(lines) + after], ["0", "1", "2"])
    assert outcomes(found) == [(str(number), "ok", f"text {number}") for number in range(3)]
    assert tally.clean


@pytest.mark.fault("F30")
def test_huge_line(tmp_path: Path) -> None:
    """A line larger than DuckDB's reader takes, and than a batch of lines, is read all the same."""
    text = "x" * (BATCH_BYTES + 1000)
    found, _ = read(tmp_path, [line("1", "first") + line("2", text) + line("3", "third")], ["1", "2", "3"])
    assert outcomes(found) == [("1", "ok", "first"), ("2", "ok", text), ("3", "ok", "third")]


@pytest.mark.fault("F26")
def test_both_files(tmp_path: Path) -> None:
    """Answers and refusals of both files come together, in any order."""
    refusal = b'{"custom_id":"1","response":{"status_code":422,"body":{"detail":"no"}},"error":null}\n'
    found, tally = read(tmp_path, [line("2", "b") + line("0", "a"), refusal], ["0", "1", "2"])
    assert outcomes(found) == [("0", "ok", "a"), ("1", "error", None), ("2", "ok", "b")]
    assert tally.clean


def test_one_bad_file_of_two(tmp_path: Path) -> None:
    """A bad line in one file costs nothing of the other."""
    found, _ = read(tmp_path, [line("0", "a"), b"{\n" + line("1", "b")], ["0", "1"])
    assert outcomes(found) == [("0", "ok", "a"), ("1", "ok", "b")]


# Joined by custom_id, each once


@pytest.mark.fault("F29")
def test_identical_repeats_are_folded(tmp_path: Path) -> None:
    """The same answer twice is one row."""
    found, tally = read(tmp_path, [line("1", "a") * 2 + line("2", "b")], ["1", "2"])
    assert outcomes(found) == [("1", "ok", "a"), ("2", "ok", "b")]
    assert (tally.repeated, tally.clean) == (1, False)


def turned(value: Any) -> Any:
    """Return a JSON value with the members of its objects in the opposite order."""
    if isinstance(value, dict):
        return {name: turned(value[name]) for name in reversed(value)}
    return [turned(each) for each in value] if isinstance(value, list) else value


@pytest.mark.fault("F29")
@pytest.mark.parametrize("indent", [None, 0])
def test_repeats_written_in_another_way_are_folded(tmp_path: Path, indent: int | None) -> None:
    """The same answer twice is one row although its JSON has other blanks and its members in another order."""
    first = line("1", 'é "a" 1.0')
    second = (
        json.dumps(turned(json.loads(first)), ensure_ascii=False, indent=indent).replace("\n", " ").encode() + b"\n"
    )
    found, _ = read(tmp_path, [first + second + line("2", "b"), second], ["1", "2"])
    assert outcomes(found) == [("1", "ok", 'é "a" 1.0'), ("2", "ok", "b")]


@pytest.mark.fault("F29")
@pytest.mark.parametrize(
    "body",
    [
        {"extra": [1, 2]},
        {"extra": {"b": "1"}},
        {"extra": {"a": {}}},
        {"extra": {"a": [0]}},
        {"extra": "1"},
        {"model": "n"},
    ],
)
def test_repeats_that_differ_in_one_value_are_told(tmp_path: Path, body: dict[str, Any]) -> None:
    """Answers that differ anywhere in their JSON are different answers, and are counted as that."""
    other = line("1", extra={"b": 1})
    found, _ = read(tmp_path, [other + other + line("1", **body) + line("1", **turned(body))], ["1"])
    assert (found[0]["outcome"], found[0]["error"]) == (
        "error",
        "the result files hold 2 different answers for this custom_id",
    )


@pytest.mark.fault("F29")
def test_conflicting_repeats_are_told(tmp_path: Path) -> None:
    """Two different answers for one custom_id are an error row: neither is chosen silently."""
    found, _ = read(tmp_path, [line("1", "a") + line("1", "other") + line("2", "b")], ["1", "2"])
    assert found[0]["outcome"] == "error"
    assert "2 different answers" in found[0]["error"]
    assert outcomes(found)[1] == ("2", "ok", "b")


@pytest.mark.fault("F29")
def test_unknown_ids_are_left_out(tmp_path: Path) -> None:
    """An answer to what was not submitted is not among the results."""
    found, tally = read(tmp_path, [line("1") + line("stranger") + line(None)], ["1"])
    assert [row["custom_id"] for row in found] == ["1"]
    assert tally.unknown >= 1


def test_ids_that_differ_in_blanks_and_case(tmp_path: Path) -> None:
    """custom_ids are compared exactly."""
    ids = ["a", "A", " a", "a ", "é", "e\u0301", ""]
    found, tally = read(tmp_path, [b"".join(line(each, each) for each in reversed(ids))], ids)
    assert {row["custom_id"]: row["content"] for row in found} == {each: each for each in ids}
    assert tally.clean


# Completeness


@pytest.mark.fault("F27")
def test_short_file_is_refused(tmp_path: Path) -> None:
    """Files that hold fewer rows than the counts promise are refused with both numbers, and nothing is kept."""
    with pytest.raises(IncompleteResultsError, match="hold 2 of the 3 rows that its counts promise"):
        read(tmp_path, [GOOD], ["1", "2", "3"])
    assert not (tmp_path / "results.parquet").exists()


@pytest.mark.fault("F27")
def test_short_file_with_partial(tmp_path: Path) -> None:
    """With partial, what there is comes out, and the rest is missing."""
    found, tally = read(tmp_path, [GOOD], ["1", "2", "3"], partial=True)
    assert outcomes(found) == [("1", "ok", "first"), ("2", "missing", None), ("3", "ok", "third")]
    assert tally.missing == 1


@pytest.mark.parametrize("status", ["FAILED", "TIMEOUT_EXCEEDED", "CANCELLED"])
@pytest.mark.fault("F25")
def test_bad_endings_keep_what_was_paid(tmp_path: Path, status: str) -> None:
    """A job that ended badly keeps the answers that it has, and tells the rest with its ending."""
    ended = ended_job(3, status=status, completed=2, errors=(("out of time", 1),))
    found, _ = read(tmp_path, [GOOD], ["1", "2", "3"], of=ended)
    assert outcomes(found) == [("1", "ok", "first"), ("2", "missing", None), ("3", "ok", "third")]
    assert found[1]["error"] == f"no result: the job ended {status} (out of time)"
    assert (found[1]["job_id"], found[1]["model"], found[1]["reused"]) == ("job", "the-jobs-model", False)


@pytest.mark.fault("F25", "F26")
def test_job_without_files(tmp_path: Path) -> None:
    """A job that ended without any file has a missing row for each custom_id."""
    found, _ = read(tmp_path, [], ["1", "2"], of=ended_job(2, status="FAILED", completed=0))
    assert outcomes(found) == [("1", "missing", None), ("2", "missing", None)]
    assert found[0]["error"] == "no result: the job ended FAILED"


@pytest.mark.parametrize("data", [b"", b"\n"], ids=["no bytes", "a blank line"])
def test_empty_file_of_a_success(tmp_path: Path, data: bytes) -> None:
    """An empty file of a job with SUCCESS is no result, also where the server counted nothing."""
    for completed in (2, 0):
        with pytest.raises(IncompleteResultsError, match="hold 0 of the 2 rows"):
            read(tmp_path, [data], ["1", "2"], of=ended_job(2, completed=completed))


@pytest.mark.fault("F26")
def test_answers_without_a_file(tmp_path: Path) -> None:
    """A job that counts answers but names no file is told as such, with what may be the reason."""
    said = r"Job job counts 2 answers but names no result file\. .* inline, .* are not read\."
    with pytest.raises(IncompleteResultsError, match=said):
        read(tmp_path, [], ["1", "2"], of=ended_job(2))
    found, _ = read(tmp_path, [], ["1", "2"], of=ended_job(2), partial=True)
    assert outcomes(found) == [("1", "missing", None), ("2", "missing", None)]


def test_bad_bytes_do_not_count_as_rows(tmp_path: Path) -> None:
    """A file that ends within a line is short by that line only where its custom_id cannot be read."""
    whole = line("1", "first") + line("2", "second")
    with pytest.raises(IncompleteResultsError):
        read(tmp_path, [whole[: whole.rindex(b'"custom_id"') + 5]], ["1", "2"])


def test_job_of_another_program(tmp_path: Path) -> None:
    """Where the input cannot be had, the rows of the files are the results, if they are as many as the counts say."""
    found, _ = read(tmp_path, [GOOD], None, of=ended_job(2))
    assert outcomes(found) == [("1", "ok", "first"), ("3", "ok", "third")]
    with pytest.raises(IncompleteResultsError, match="hold 2 of the 3"):
        read(tmp_path, [GOOD], None, of=ended_job(3))


@pytest.mark.parametrize(("counted", "total", "unnamed"), [(4, 4, 2), (0, 4, 2), (4, 0, 2), (0, 0, 0), (2, 2, 0)])
@pytest.mark.fault("F27")
def test_requests_whose_ids_are_not_known(tmp_path: Path, counted: int, total: int, unnamed: int) -> None:
    """Where the input cannot be had, the rows that neither the files nor anything else name are counted."""
    ended = ended_job(counted, completed=2, status="TIMEOUT_EXCEEDED", total_requests=total)
    found, tally = read(tmp_path, [GOOD], None, of=ended)
    assert outcomes(found) == [("1", "ok", "first"), ("3", "ok", "third")]
    assert tally == Tally(held=2, missing=0, unknown=0, repeated=0, unnamed=unnamed)


@pytest.mark.parametrize("completed", [3, 0])
@pytest.mark.parametrize("submission_id", [None, "restored"])
@pytest.mark.fault("F27")
def test_job_that_told_no_total_at_first(tmp_path: Path, submission_id: str | None, completed: int) -> None:
    """A job that was found before it counted its requests has short files refused, and whole ones kept."""
    found_early = ended_job(3, completed=completed).evolve(submission_id=submission_id, request_count=0)
    for submitted in (["1", "2", "3"], ["1", "3"]):  # the requests may come short as well
        with pytest.raises(IncompleteResultsError, match="hold 2 of the 3 rows"):
            read(tmp_path, [GOOD], submitted, of=found_early)
    found, tally = read(tmp_path, [GOOD + line("2")], ["1", "2", "3"], of=found_early)
    assert (len(found), tally) == (3, Tally(held=3, missing=0, unknown=0, repeated=0))


@pytest.mark.fault("F38")
def test_answers_are_never_run(tmp_path: Path) -> None:
    """Answers and custom_ids that look like SQL or formulas stay text."""
    text = '\'); DROP TABLE x; -- =HYPERLINK("http://x") $model'
    found, _ = read(tmp_path, [line(text, text)], [text])
    assert outcomes(found) == [(text, "ok", text)]


def test_path_with_a_quote(tmp_path: Path) -> None:
    """A home with quotes and blanks in its name works."""
    directory = tmp_path / "it's a home"
    directory.mkdir()
    found, _ = read(directory, [line("1", "hi")], ["1"])
    assert outcomes(found) == [("1", "ok", "hi")]


def test_disk_that_is_full(tmp_path: Path) -> None:
    """A disk that is full while results are written is told as such, not as one of DuckDB's errors."""
    with own_engine() as engine, pytest.raises(OSError, match="No space left on device"):
        convert._copy(engine, "SELECT NULL AS custom_id", Path("/dev/full"), columns={"custom_id": "VARCHAR"})
