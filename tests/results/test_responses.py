"""Large jobs, whose responses stay in the result lines: every column is the same as where they do not."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import answered, asked_for_money, connect, ended_job, make_staging, rows, submitted, write_results

from duckdb_mistral.errors import IncompleteResultsError
from duckdb_mistral.results import convert, responses
from duckdb_mistral.results.convert import ResultFiles
from duckdb_mistral.results.responses import find_lines, kept_rows, lines_of, register_lines, size_of
from duckdb_mistral.state.names import line_path

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from duckdb_mistral.emulator import Emulator


@pytest.fixture
def all_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every result file of a chat job count as large."""
    monkeypatch.setattr(convert, "LARGE_BYTES", 0)


def line(custom_id: Any, message: Any = None, *, status: int = 200, error: Any = None, **body: Any) -> bytes:
    """Return a result line of a chat job."""
    choice = {"index": 0, "finish_reason": "stop", "message": message or {"role": "assistant", "content": "hi"}}
    answer = {
        "id": "an id",
        "model": "m",
        "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
        "choices": [choice],
    }
    response = None if error is not None else {"status_code": status, "body": answer | body}
    document = {"id": "batch-1", "custom_id": custom_id, "response": response, "error": error}
    return json.dumps(document, ensure_ascii=False).encode() + b"\n"


def said(content: Any, **message: Any) -> dict[str, Any]:
    """Return a message with this content."""
    return {"role": "assistant", "content": content, **message}


def read(directory: Path, files: list[bytes], submitted: list[str], *, large: bool) -> tuple[list[Any], int]:
    """Return the rows that come of result files, all columns of them, and how many files were kept beside them."""
    directory.mkdir(parents=True)
    paths = [directory / f"answers-{number}.jsonl" for number in range(len(files))]
    for path, data in zip(paths, files, strict=True):
        path.write_bytes(data)
    requests = directory / "submitted.jsonl"
    requests.write_text("".join(json.dumps({"custom_id": each, "body": {}}) + "\n" for each in submitted))
    target = directory / "results.parquet"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(convert, "LARGE_BYTES", 0 if large else 1 << 60)
        written = write_results(
            ended_job(len(submitted)), ResultFiles(answers=tuple(paths), submitted=requests), target, partial=False
        )
    for number, path in enumerate(written.lines):
        path.replace(line_path(target, number))
    with duckdb.connect() as engine:
        register_lines(engine)
        found = engine.execute(f"FROM {kept_rows([target])} ORDER BY custom_id").fetchall()
    return found, len(written.lines)


def keyed(custom_ids: Iterable[str]) -> tuple[pa.Array, pa.Array]:
    """Return what DuckDB's hash() says of custom_ids, and these."""
    ids = list(custom_ids)
    with duckdb.connect() as engine:
        hashes = [engine.execute("SELECT hash($id)", {"id": each}).fetchall()[0][0] for each in ids]
    return pa.array(np.array(hashes, dtype=np.uint64)), pa.array(ids)


ORDINARY = [line("x1"), line("x2", said("two"))]
LINES = {
    "an ordinary answer": line("a", said('text "with" \\ all\n sorts é 東 🎉 of \t characters')),
    "a NUL in the answer": line("a", said("one\0two")),
    "spaces around the document": b"  " + line("a").rstrip(b"\n") + b"  \n",
    "line ends of Windows": line("a").rstrip(b"\n") + b"\r\n",
    "empty lines between": b"\n\n" + line("a") + b"\n",
    "no newline at the end": line("a").rstrip(b"\n"),
    "an empty answer": line("a", said("")),
    "a list as text": line("a", said("[1, 2]")),
    "an object as text": line("a", said('{"a": 1}')),
    "a tool call": line("a", said(None, tool_calls=[{"function": {"name": "f", "arguments": "{}"}}])),
    "no tool calls": line("a", said("yes", tool_calls=None)),
    "neither answer nor tool call": line("a", said(None)),
    "a cut answer": line("a", choices=[{"finish_reason": "length", "message": said("cut")}]),
    "an answer that ended in an error": line("a", choices=[{"finish_reason": "error", "message": said("?")}]),
    "two choices": line("a", choices=[{"finish_reason": "stop", "message": said(each)} for each in ("one", "two")]),
    "no choices": line("a", choices=[]),
    "no usage": line("a", usage=None),
    "no model": line("a", model=None),
    "numbers that are none": line("a", said("NaN, -Infinity"), logprobs=[float("nan"), -math.inf, {"a": math.nan}]),
    "fields that are new": line("a", said("yes", thoughts=["a", 1]), more={"deep": [1, 2.5, None]}),
    "an error and no response": line("a", error={"message": "out of order", "code": 7}),
    "an error as text": line("a", error="out of order"),
    "an empty response": b'{"custom_id": "a", "response": {"status_code": 200, "body": null}, "error": null}\n',
    "no response at all": b'{"custom_id": "a", "error": null}\n',
    "a custom_id of all sorts": line('"é" \\ 東\n🎉', said("yes")),
    "a custom_id that is empty": line("", said("yes")),
}
#: What needs the text of the response ends the quick way.
LONGER = {
    "a list of chunks": line("a", said([{"type": "text", "text": "one"}, {"type": "text", "text": "two"}])),
    "an empty list of chunks": line("a", said([])),
    "a list of objects as text": line("a", said('[{"a": 1}]')),
    "a refusal by the model": line("a", status=422, detail="too long"),
    "a bad line": line("a")[:-20] + b"\n",
    "a body that is no object": b'{"custom_id": "a", "response": {"status_code": 200, "body": "?"}, "error": null}\n',
    "an answer twice": line("a") * 2,
}


@pytest.mark.parametrize("data", (LINES | LONGER).values(), ids=LINES | LONGER)
def test_columns_are_the_same(data: bytes, tmp_path: Path) -> None:
    """Whatever a line says, its row is the same, response included, whether its file counts as large or not."""
    custom_id = next((found for found in (_id_of(each) for each in data.splitlines()) if found is not None), "a")
    files, ids = [ORDINARY[0] + data.rstrip(b"\n") + b"\n" + ORDINARY[1]], ["x1", "x2", custom_id]
    whole, _ = read(tmp_path / "whole", files, ids, large=False)
    found, kept = read(tmp_path / "large", files, ids, large=True)
    assert found == whole
    assert len(found) == 3
    assert kept == (0 if data in LONGER.values() else 1)


def _id_of(text: bytes) -> str | None:
    try:
        custom_id: str | None = json.loads(text)["custom_id"]
    except ValueError:
        return None
    return custom_id


@given(
    answers=st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"])), st.text(st.characters(exclude_categories=["Cs"])), min_size=1
    )
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text(answers: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> None:
    """Any custom_ids and any answers come out as they went in, each response with its own row."""
    directory = tmp_path_factory.mktemp("text")
    data = b"".join(line(custom_id, said(content)) for custom_id, content in answers.items())
    found, _ = read(directory / "large", [data], list(answers), large=True)
    assert {row[0]: row[2] for row in found} == answers
    for row in found:
        assert json.loads(row[13])["choices"][0]["message"]["content"] == answers[row[0]]


def test_byte_order_mark(tmp_path: Path) -> None:
    """The responses of a large file that begins with a byte order mark are found as those of another one."""
    data = b"\xef\xbb\xbf" + line("a", said("yes")) + line("b", said("no"))
    whole, _ = read(tmp_path / "whole", [data], ["a", "b"], large=False)
    found, _ = read(tmp_path / "large", [data], ["a", "b"], large=True)
    assert found == whole


def test_a_small_file_of_errors_beside_a_large_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two result files only the large one is kept; refusals in the other do not end the quick way."""
    directory = tmp_path / "both"
    directory.mkdir()
    output, errors, target = directory / "output.jsonl", directory / "errors.jsonl", directory / "results.parquet"
    output.write_bytes(b"".join(line(f"id {number}", said("long " * 50)) for number in range(100)))
    errors.write_bytes(line("bad", status=422, detail="too long"))
    requests = directory / "submitted.jsonl"
    requests.write_text(
        "".join(f'{{"custom_id": "id {number}"}}\n' for number in range(100)) + '{"custom_id": "bad"}\n'
    )
    monkeypatch.setattr(convert, "LARGE_BYTES", 10_000)
    files = ResultFiles(answers=(output, errors), submitted=requests)
    written = write_results(ended_job(101), files, target, partial=False)
    assert written.lines == (output,)
    output.replace(line_path(target, 0))
    with duckdb.connect() as engine:
        register_lines(engine)
        found = engine.execute(
            f"SELECT custom_id, error, response->>'$.detail' AS said "
            f"FROM {kept_rows([target])} WHERE custom_id IN ('bad', 'id 7') ORDER BY custom_id"
        ).fetchall()
    assert found == [("bad", "too long", "too long"), ("id 7", None, None)]


def test_two_large_files(tmp_path: Path) -> None:
    """Rows of two result files find their responses in both."""
    files = [line("a", said("one")) + line("b", said("two")), line("c", said("three"))]
    found, kept = read(tmp_path / "two", files, ["a", "b", "c"], large=True)
    assert kept == 2
    assert [json.loads(row[13])["choices"][0]["message"]["content"] for row in found] == ["one", "two", "three"]


@pytest.mark.usefixtures("all_large")
def test_rows_that_are_missing_or_made_up(tmp_path: Path) -> None:
    """Where the custom_ids are not those submitted, the files are read the longer way, and every row is there."""
    data = line("a") + line("stranger")
    with pytest.raises(IncompleteResultsError):
        read(tmp_path / "missing", [data], ["a", "b"], large=True)
    found, kept = read(tmp_path / "stranger", [data + line("b")], ["a", "b"], large=True)
    assert kept == 0
    assert [row[:2] for row in found] == [("a", "ok"), ("b", "ok")]


def test_lines_of_several_files_in_any_order(tmp_path: Path) -> None:
    """A vector may hold rows of several files in any order, and rows that have no line."""
    files = []
    for number in range(3):
        target = tmp_path / f"{number}.parquet"
        target.write_bytes(b"")
        files.append(target)
        if number < 2:
            data = b"".join(line(f"{number} {each}", said(f"{number} {each}")) for each in range(50))
            line_path(target, 0).write_bytes(data)
    picked = [(number, each) for each in reversed(range(50)) for number in (1, 2, 0)] + [(0, 50)]
    names = pa.array([str(files[number]) for number, _ in picked])
    found = find_lines(names, *keyed(f"{number} {each}" for number, each in picked)).to_pylist()
    expected = [None if number == 2 or each == 50 else f"{number} {each}" for number, each in picked]
    assert [None if text is None else json.loads(text)["custom_id"] for text in found] == expected


def test_collation_of_the_connection(tmp_path: Path) -> None:
    """A row's response is that of its own line, also where the connection takes 'a' and 'A' for the same."""
    read(tmp_path / "cased", [line("a", said("one")) + line("A", said("two"))], ["a", "A"], large=True)
    with duckdb.connect() as engine:
        engine.execute("SET default_collation = 'NOCASE'")
        register_lines(engine)
        found = engine.execute(
            "SELECT custom_id, response->>'$.choices[0].message.content' "
            f"FROM {kept_rows([tmp_path / 'cased' / 'results.parquet'])}"
        ).fetchall()
    assert sorted(found) == [("A", "two"), ("a", "one")]


def test_lines_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines are found wherever the blocks end in which the file is read."""
    texts = [line("a"), b"\n", b"  \r\n", b" " + line("b"), line("c", said("é東\u2028")), b"\t\n\n", line("d").rstrip()]
    target = tmp_path / "results.parquet"
    line_path(target, 0).write_bytes(b"".join(texts))
    found = []
    for size in (1, 2, 3, 7, 64, 1 << 20):
        monkeypatch.setattr(responses, "BLOCK_BYTES", size)
        responses._index.cache_clear()
        found.append(find_lines(pa.array([str(target)] * 4), *keyed("abcd")).to_pylist())
    assert [json.loads(text)["custom_id"] for text in found[0]] == ["a", "b", "c", "d"]
    assert all(each == found[0] for each in found)


@pytest.mark.parametrize("step", [1, -1, 7, 61])
def test_lines_in_any_places(step: int, tmp_path: Path) -> None:
    """Lines are found in their order, against it, and in many places."""
    target = tmp_path / "results.parquet"
    line_path(target, 0).write_bytes(b"".join(line(str(number), said(f"answer {number}")) for number in range(100)))
    wanted = [str(number * step % 100) for number in range(100)]
    found = find_lines(pa.array([str(target)] * 100), *keyed(wanted)).to_pylist()
    assert [json.loads(text)["custom_id"] for text in found] == wanted


def test_a_file_that_duckdb_reads_in_pieces(tmp_path: Path) -> None:
    """Of a file that several threads read at a time, every row has the response of its own line."""
    output, requests, target = tmp_path / "output.jsonl", tmp_path / "submitted.jsonl", tmp_path / "results.parquet"
    with duckdb.connect() as engine:
        message = "{'role': 'assistant', 'content': range || repeat(' word', 150)}"
        engine.execute(
            f"""COPY (
              SELECT range::VARCHAR AS custom_id, {{'status_code': 200, 'body': {{'model': 'm', 'choices': [
                {{'finish_reason': 'stop', 'message': {message}}}
              ]}}}} AS response, NULL AS error FROM range(100_000)
            ) TO '{output}' (FORMAT json)"""
        )
        engine.execute(f"COPY (SELECT range::VARCHAR AS custom_id FROM range(100_000)) TO '{requests}' (FORMAT json)")
        assert output.stat().st_size > 80_000_000
        files = ResultFiles(answers=(output,), submitted=requests)
        assert write_results(ended_job(100_000), files, target, partial=False).lines == (output,)
        output.replace(line_path(target, 0))
        register_lines(engine)
        same = "content = (response->>'$.choices[0].message.content') AND content LIKE custom_id || ' word%'"
        found = engine.execute(f"SELECT count(*) FROM {kept_rows([target])} WHERE {same}").fetchall()
    assert found == [(100_000,)]


@pytest.mark.parametrize(
    "changed",
    [
        line("a", said("one")) + line("c", said("two")),
        line("a", said("one")),
        line("a", said("one")) + line("b")[:-20] + b"\n",
        line("a", said("one")) + line("b") + b"and more\n",
        b"",
    ],
    ids=["another", "one less", "one that is cut", "one that is no line", "none"],
)
def test_lines_that_were_changed_are_told(changed: bytes, tmp_path: Path) -> None:
    """Where a row's line is gone, its response is refused rather than empty; the other columns are read."""
    directory = tmp_path / "changed"
    read(directory, [line("a", said("one")) + line("b", said("two"))], ["a", "b"], large=True)
    target = directory / "results.parquet"
    line_path(target, 0).write_bytes(changed)
    with duckdb.connect() as engine:
        register_lines(engine)
        assert len(engine.execute(f"SELECT * EXCLUDE (response) FROM {kept_rows([target])}").fetchall()) == 2
        with pytest.raises(duckdb.InvalidInputException, match=r"not the ones .* EXCLUDE \(response\)"):
            engine.execute(f"FROM {kept_rows([target])}").fetchall()


def test_lines_of_errors_that_were_changed_are_told(tmp_path: Path) -> None:
    """Of rows with an error, those whose line is gone are refused, and those of a small file are not."""
    directory = tmp_path / "both"
    directory.mkdir()
    output, errors, target = directory / "output.jsonl", directory / "errors.jsonl", directory / "results.parquet"
    failed = line("a", choices=[{"finish_reason": "error", "message": said("long " * 50)}])
    output.write_bytes(failed)
    errors.write_bytes(b'{"custom_id": "b", "response": {"status_code": 500, "body": null}, "error": null}\n')
    requests = directory / "submitted.jsonl"
    requests.write_text('{"custom_id": "a"}\n{"custom_id": "b"}\n')
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(convert, "LARGE_BYTES", 200)
        files = ResultFiles(answers=(output, errors), submitted=requests)
        assert write_results(ended_job(2), files, target, partial=False).lines == (output,)
    line_path(target, 0).write_bytes(failed.replace(b'"a"', b'"x"'))
    with duckdb.connect() as engine:
        register_lines(engine)
        query = f"SELECT response FROM {kept_rows([target])} WHERE custom_id = $id"
        assert engine.execute(query, {"id": "b"}).fetchall() == [(None,)]
        with pytest.raises(duckdb.InvalidInputException, match=r"not the ones .* EXCLUDE \(response\)"):
            engine.execute(query, {"id": "a"}).fetchall()


def test_an_index_that_could_not_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A passing failure, such as too little memory, is told as what it is, and the next query reads the lines."""
    target = tmp_path / "results.parquet"
    line_path(target, 0).write_bytes(line("a", said("one")))
    wanted = pa.array([str(target)]), *keyed("a")

    def fail(*_: Any) -> Any:
        raise duckdb.OutOfMemoryException("no memory left")

    with monkeypatch.context() as patch:
        patch.setattr(responses, "_hashes", fail)
        with pytest.raises(duckdb.OutOfMemoryException):
            find_lines(*wanted)
    assert "one" in find_lines(*wanted)[0].as_py()


def test_a_hash_of_two_custom_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a hash leads to another custom_id's line, its response is refused rather than given to the row."""
    directory = tmp_path / "same"
    read(directory, [line("a", said("one")) + line("b", said("two"))], ["a", "b"], large=True)
    monkeypatch.setattr(responses.LineIndex, "numbers", lambda _, hashes, __: np.zeros(len(hashes), dtype=np.int64))
    with duckdb.connect() as engine:
        register_lines(engine)
        with pytest.raises(duckdb.InvalidInputException, match=r"not the ones .* EXCLUDE \(response\)"):
            engine.execute(f"FROM {kept_rows([directory / 'results.parquet'])}").fetchall()


@pytest.mark.fault("F52")
def test_two_custom_ids_of_one_hash(tmp_path: Path) -> None:
    """Where the hash of two custom_ids is the same, each has its own response, in a query for one or for all."""
    ids = ["order-01customer", "order-_5customd1"]
    assert len(set(keyed(ids)[0].to_pylist())) == 1
    all_ids = [*ids, "other"]
    found, kept = read(tmp_path / "same", [b"".join(line(each, said(each)) for each in all_ids)], all_ids, large=True)
    assert kept == 1
    assert [json.loads(row[13])["choices"][0]["message"]["content"] for row in found] == sorted(all_ids)
    with duckdb.connect() as engine:
        register_lines(engine)
        query = f"SELECT response FROM {kept_rows([tmp_path / 'same' / 'results.parquet'])} WHERE custom_id = $id"
        for each in all_ids:
            ((response,),) = engine.execute(query, {"id": each}).fetchall()
            assert json.loads(response)["choices"][0]["message"]["content"] == each


def test_a_file_that_was_fetched_again(tmp_path: Path) -> None:
    """A result file that is another one since is read anew."""
    target = tmp_path / "results.parquet"
    line_path(target, 0).write_bytes(line("a", said("one")))
    wanted = pa.array([str(target)]), *keyed("a")
    assert "one" in find_lines(*wanted)[0].as_py()
    line_path(target, 0).unlink()
    assert find_lines(*wanted).to_pylist() == [None]
    line_path(target, 0).write_bytes(line("a", said("another")))
    assert "another" in find_lines(*wanted)[0].as_py()


def test_size_is_that_of_all_files(tmp_path: Path) -> None:
    """The size of kept results counts the result files beside them, so that a cut one is noticed."""
    target = tmp_path / "results.parquet"
    target.write_bytes(b"12345")
    assert (lines_of(target), size_of(target)) == ([], 5)
    line_path(target, 0).write_bytes(b"123")
    line_path(target, 1).write_bytes(b"1")
    assert lines_of(target) == [line_path(target, 0), line_path(target, 1)]
    assert size_of(target) == 9


# In SQL


@pytest.mark.usefixtures("all_large")
def test_responses_in_sql(emulator: Emulator, home: Path) -> None:
    """The column response is the line's, filters and all; no file is asked for again, in another session too."""
    with connect(emulator, home) as con:
        make_staging(con, 5000)
        submission_id = submitted(con)
        found = answered(con, submission_id)
    assert [json.loads(row["response"])["choices"][0]["message"]["content"] for row in found] == [
        row["content"] for row in found
    ]
    assert {row["content"] for row in found} == {f"echo: prompt {number}" for number in range(5000)}
    assert list((home / "results").glob("*.lines-0.jsonl"))
    downloads = emulator.witness()["requests"]["download"]
    with connect(emulator, home) as con:
        query = f"SELECT response FROM mistral_batch_results('{submission_id}') WHERE custom_id IN ('17', '4711')"
        contents = {json.loads(text)["choices"][0]["message"]["content"] for (text,) in con.execute(query).fetchall()}
        assert contents == {"echo: prompt 17", "echo: prompt 4711"}
        ((used,),) = con.execute(f"SELECT answers FROM mistral_batch_cost('{submission_id}')").fetchall()
    assert used == 5000
    assert emulator.witness()["requests"]["download"] == downloads


@pytest.mark.usefixtures("all_large")
def test_response_is_left_alone_where_nobody_asks(
    emulator: Emulator, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A query without the column response looks at no line."""
    with connect(emulator, home) as con:
        make_staging(con)
        submission_id = submitted(con)
        answered(con, submission_id)
        monkeypatch.setattr(responses, "LineIndex", None)
        responses._index.cache_clear()
        found = rows(con, f"SELECT custom_id, content FROM mistral_batch_results('{submission_id}') ORDER BY ALL")
    assert [row["content"] for row in found] == [f"echo: prompt {number}" for number in range(3)]


@pytest.mark.fault("F34")
@pytest.mark.usefixtures("all_large")
@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_lines_that_were_damaged_are_fetched_again(damage: str, emulator: Emulator, home: Path) -> None:
    """Where the result file beside kept results is cut or gone, both are made anew, and nothing is paid again."""
    with connect(emulator, home) as con:
        make_staging(con)
        submission_id = submitted(con)
        before = answered(con, submission_id)
    (path,) = (home / "results").glob("*.lines-0.jsonl")
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-10])
    else:
        path.unlink()
    money = asked_for_money(emulator)
    with connect(emulator, home) as con:
        assert answered(con, submission_id) == before
    assert asked_for_money(emulator) == money


@pytest.mark.usefixtures("all_large")
def test_answers_that_are_found_again_have_their_responses(emulator: Emulator, home: Path) -> None:
    """A row that reuses an answer of a large job has that answer's response."""
    with connect(emulator, home) as con:
        make_staging(con)
        answered(con, submitted(con))
        con.execute("CREATE TABLE later AS SELECT 'new ' || custom_id AS custom_id, prompt FROM staging")
        found = answered(con, submitted(con, "later", "reuse := 'requests'"))
    assert [row["reused"] for row in found] == [True] * 3
    assert [json.loads(row["response"])["choices"][0]["message"]["content"] for row in found] == [
        row["content"] for row in found
    ]


@pytest.mark.fault("F34")
@pytest.mark.parametrize("call", ["results", "retry", "cost"])
def test_kept_results_that_were_overwritten(call: str, emulator: Emulator, home: Path) -> None:
    """Kept results that are no Parquet any more, though of the same size, are fetched again by whatever reads them."""
    with connect(emulator, home) as con:
        make_staging(con)
        submission_id = submitted(con)
        before = answered(con, submission_id)
        (kept,) = (home / "results").glob("*.parquet")
        kept.write_bytes(b"\0" * kept.stat().st_size)
        rows(con, f"FROM mistral_batch_{call}('{submission_id}')")
        assert rows(con, f"FROM mistral_batch_results('{submission_id}') ORDER BY custom_id") == before
