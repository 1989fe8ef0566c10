"""Declared output: from a DuckDB type to a strict JSON schema, and from answers back to a column of that type."""

from __future__ import annotations

import json
import re
from datetime import date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from openapi import request_problems
from support import answered, ended_job, make_staging, rows, submitted, write_results

from duckdb_mistral.batches.collect import Family
from duckdb_mistral.errors import ArgumentError
from duckdb_mistral.functions.statements import results_statement
from duckdb_mistral.results.convert import ResultFiles
from duckdb_mistral.results.output import declared, parsed_sql

if TYPE_CHECKING:
    from pathlib import Path

NESTED = (
    "STRUCT(sentiment ENUM('good', 'bad'), score DOUBLE, tags VARCHAR[], visits INTEGER, \"the day\" DATE, "
    "moment TIMESTAMP, price DECIMAL(9,2), sure BOOLEAN, places STRUCT(name VARCHAR, points DOUBLE[2])[])"
)
GOOD: dict[str, Any] = {
    "sentiment": "good",
    "score": 0.5,
    "tags": ["a", "b"],
    "visits": 3,
    "the day": "2026-01-31",
    "moment": "2026-01-31T12:00:00Z",
    "price": 1234.56,
    "sure": True,
    "places": [{"name": "Lyon", "points": [1, 2.5]}],
}
READ = {
    "sentiment": "good",
    "score": 0.5,
    "tags": ["a", "b"],
    "visits": 3,
    "the day": date(2026, 1, 31),
    "moment": datetime(2026, 1, 31, 12),  # noqa: DTZ001
    "price": Decimal("1234.56"),
    "sure": True,
    "places": [{"name": "Lyon", "points": (1.0, 2.5)}],
}


def results_of(
    texts: list[str | None], output: str | None, directory: Path, *, called: bool = True
) -> list[dict[str, Any]]:
    """Return the results of a chat job whose answers are `texts`, beside calls of a tool, as a caller reads them."""
    answers, submitted_file = directory / "answers.jsonl", directory / "submitted.jsonl"
    target = directory / "results.parquet"
    bodies = [
        {"choices": [{"finish_reason": "stop", "message": {"content": text, "tool_calls": [1] if called else []}}]}
        for text in texts
    ]
    answers.write_text(
        "".join(
            json.dumps({"custom_id": f"{number:03}", "response": {"status_code": 200, "body": body}}) + "\n"
            for number, body in enumerate(bodies)
        ),
        encoding="utf-8",
    )
    submitted_file.write_text(
        "".join(f'{{"custom_id": "{number:03}"}}\n' for number in range(len(texts))), encoding="utf-8"
    )
    files = ResultFiles(answers=(answers,), submitted=submitted_file, output=output)
    write_results(ended_job(len(texts)), files, target, partial=False)
    scan = results_statement([Family(model="", generations=((target,),))], output)
    with duckdb.connect() as con:
        return rows(con, f"FROM ({scan}) ORDER BY custom_id")


def test_schema_of_a_type() -> None:
    """A type becomes a schema in which every field is required, may be null, and nothing else is allowed."""
    output = declared("STRUCT(mood ENUM('up', 'down'), n INTEGER, moment TIMESTAMP, inside STRUCT(tags VARCHAR[]))")
    schema = output.response_format["json_schema"]["schema"]
    assert output.response_format["type"] == "json_schema"
    assert output.response_format["json_schema"]["strict"] is True
    assert schema == {
        "type": "object",
        "properties": {
            "mood": {"type": ["string", "null"], "enum": ["up", "down", None]},
            "n": {"type": ["integer", "null"]},
            "moment": {"type": ["string", "null"], "format": "date-time"},
            "inside": {
                "type": ["object", "null"],
                "properties": {"tags": {"type": ["array", "null"], "items": {"type": "string"}}},
                "required": ["tags"],
                "additionalProperties": False,
            },
        },
        "required": ["mood", "n", "moment", "inside"],
        "additionalProperties": False,
    }


def test_nested_round_trip(tmp_path: Path) -> None:
    """Each value of a nested type comes back as DuckDB's own value, and a null as NULL."""
    nulls = dict.fromkeys(GOOD)
    (full, empty) = results_of([json.dumps(GOOD), json.dumps(nulls)], NESTED, tmp_path)
    assert (full["outcome"], full["output"]) == ("ok", READ)
    assert (empty["outcome"], empty["output"]) == ("ok", nulls)


@pytest.mark.parametrize(
    "wrong",
    [
        {"sentiment": "ugly"},
        {"score": "0.5"},
        {"score": True},
        {"tags": "a"},
        {"tags": [1]},
        {"tags": [None]},
        {"visits": 1.5},
        {"visits": 3_000_000_000},
        {"the day": "someday"},
        {"moment": "later"},
        {"price": 1e12},
        {"sure": "yes"},
        {"places": [{"name": "Lyon"}]},
        {"places": [{"name": "Lyon", "points": [1]}]},
        {"places": {}},
        {"another": 1},
    ],
)
def test_answers_that_break_the_type(wrong: dict[str, Any], tmp_path: Path) -> None:
    """An answer that is not of the type is invalid_output, its text is kept, and the schema forbids it as well."""
    text = json.dumps(GOOD | wrong)
    (row,) = results_of([text], NESTED, tmp_path)
    assert (row["outcome"], row["output"], row["content"]) == ("invalid_output", None, text)
    (field,) = wrong
    assert re.match(rf"the answer does not fit the declared output: .*\b{field}\b", row["error"])
    # What a schema says of ranges and formats is not for its validator to decide.
    if "visits" not in wrong and "price" not in wrong and "the day" not in wrong and "moment" not in wrong:
        validator = Draft202012Validator(declared(NESTED).response_format["json_schema"]["schema"])
        assert validator.is_valid(GOOD)
        assert not validator.is_valid(GOOD | wrong)


def test_answers_that_are_no_object(tmp_path: Path) -> None:
    """Text, cut JSON, null and lists are invalid_output; an answer without text, such as a tool call, is not."""
    texts: list[str | None] = ["sorry", '{"score": ', "null", "[1]", '"x"', "", None]
    found = results_of(texts, "STRUCT(score DOUBLE)", tmp_path)
    assert [row["outcome"] for row in found] == ["invalid_output"] * 5 + ["ok"] * 2
    assert [row["content"] for row in found] == [*texts[:5], None, None]
    assert [row["output"] for row in found] == [None] * 7


def test_whole_numbers(tmp_path: Path) -> None:
    """A whole number may be written with a point, and a missing field is no NULL."""
    found = results_of(['{"n": 3.0}', '{"n": 3}', "{}"], "STRUCT(n INTEGER)", tmp_path)
    assert [(row["outcome"], row["output"]) for row in found] == [
        ("ok", {"n": 3}),
        ("ok", {"n": 3}),
        ("invalid_output", None),
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("STRUCT(a BLOB)", "has a as BLOB, which has no strict form in JSON"),
        ("STRUCT(a STRUCT(b MAP(VARCHAR, INTEGER)[]))", "has b as MAP"),
        ("STRUCT(a JSON)", "has a as JSON"),
        ("STRUCT(a INTERVAL)", "has a as INTERVAL"),
        ("STRUCT(a HUGEINT)", "has a as HUGEINT"),
        ("INTEGER[]", r"declare a STRUCT, such as 'STRUCT\(value INTEGER\[\]\)'"),
        ("mood", "must be a DuckDB type.* is 'mood'"),
        ("STRUCT(a INTEGER", "must be a DuckDB type"),
        ("INTEGER) , (1", "must be one DuckDB type"),
        ("INTEGER); DROP TABLE t; --", "must be a DuckDB type"),
        ("{'a': 1}", "is not valid JSON"),
        ('{"a": 1}', "it has no type"),
        ('{"type": "json_object"}', 'has the type "json_object", which JSON Schema does not define'),
    ],
)
def test_refused_types(text: str, words: str) -> None:
    """What is no type, or has no form in JSON, is refused in a sentence before anything is sent."""
    with pytest.raises(ArgumentError, match=words):
        declared(text)


def test_output_in_the_request(con: duckdb.DuckDBPyConnection) -> None:
    """The schema travels in each body, as the API's text wants it, and stands in the way of another format."""
    source = "SELECT 1 AS custom_id, 'hello' AS prompt"
    (row,) = rows(con, f"FROM mistral_batch_preview($${source}$$, output := $${NESTED}$$)")
    body = json.loads(row["body"])
    assert body["response_format"] == declared(NESTED).response_format
    assert request_problems("/v1/chat/completions", body) == []
    with pytest.raises(duckdb.Error, match="params sets response_format, and so does output"):
        con.execute(
            f"FROM mistral_batch_preview($${source}$$, output := 'STRUCT(a INT)', "
            "params := {response_format: {type: 'json_object'}})"
        )
    with pytest.raises(duckdb.Error, match="a response_format beside output"):
        con.execute(
            "FROM mistral_batch_preview($$SELECT 1 AS custom_id, 'x' AS prompt, {'type': 'text'} AS response_format$$, "
            "output := 'STRUCT(a INT)')"
        ).fetchall()
    with pytest.raises(duckdb.Error, match="/v1/embeddings gives no structured output"):
        con.execute(
            "FROM mistral_batch_preview('SELECT 1 AS custom_id, 1 AS input', endpoint := 'embeddings', "
            "output := 'STRUCT(a INT)')"
        )


def test_output_through_the_server(con: duckdb.DuckDBPyConnection) -> None:
    """The results of a submission with a declared type have the column output of exactly that type."""
    con.execute("CREATE TABLE staging AS FROM (VALUES (1, 'fine'), (2, '[[invalid json]]')) t(custom_id, prompt)")
    declaration = NESTED.replace("DOUBLE[2]", "DOUBLE[]")
    submission_id = submitted(con, arguments=f"output := $${declaration}$$")
    found = answered(con, submission_id)
    assert [row["outcome"] for row in found] == ["ok", "invalid_output"]
    assert found[0]["output"]["sentiment"] == "good"
    assert found[0]["output"]["the day"] == date(2026, 1, 31)
    assert (found[1]["output"], found[1]["content"]) == (None, '{"echo": ')
    described = rows(con, f"DESCRIBE FROM mistral_batch_results('{submission_id}')")
    kinds = {row["column_name"]: row["column_type"] for row in described}
    assert kinds["output"] == declared(declaration).sql_type
    (by_field,) = rows(
        con, f"SELECT output.sentiment AS mood FROM mistral_batch_results('{submission_id}') WHERE outcome = 'ok'"
    )
    assert by_field == {"mood": "good"}


def test_another_type_is_another_submission(con: duckdb.DuckDBPyConnection) -> None:
    """Two types that look alike in JSON are two submissions, each with its own type; together they are JSON."""
    make_staging(con, 1)
    ids = [submitted(con, arguments=f"output := 'STRUCT(price {kind})'") for kind in ("DOUBLE", "DECIMAL(9,2)")]
    assert len(set(ids)) == 2
    values = [answered(con, each)[0]["output"]["price"] for each in ids]
    assert [type(value) for value in values] == [float, Decimal]
    together = rows(con, "FROM mistral_batch_results()")
    assert [json.loads(row["output"]) for row in together] == [{"price": 0.5}] * 2


def test_schema_as_text(con: duckdb.DuckDBPyConnection) -> None:
    """A JSON schema is taken as it is; the output is then JSON, and what is none is invalid_output."""
    con.execute("CREATE TABLE staging AS FROM (VALUES (1, 'fine'), (2, '[[invalid json]]')) t(custom_id, prompt)")
    schema = {
        "title": "A book",
        "type": "object",
        "properties": {"name": {"type": "string"}},
        "required": ["name"],
        "additionalProperties": False,
    }
    arguments = f"output := '{json.dumps(schema)}'"
    (body, _) = [json.loads(row["body"]) for row in rows(con, f"FROM mistral_batch_preview('staging', {arguments})")]
    assert body["response_format"]["json_schema"] == {"name": "A_book", "schema": schema, "strict": True}
    found = answered(con, submitted(con, arguments=arguments))
    assert [row["outcome"] for row in found] == ["ok", "invalid_output"]
    assert json.loads(found[0]["output"]) == {"name": "echo"}
    assert found[1]["output"] is None


def test_output_of_documents(tmp_path: Path, con: duckdb.DuckDBPyConnection) -> None:
    """The annotation that OCR makes of a document is its output, and its pages stay the content."""
    output = "STRUCT(title VARCHAR)"
    (row,) = rows(
        con,
        "FROM mistral_batch_preview($$SELECT 1 AS custom_id, 'https://x/a.pdf' AS document$$, endpoint := 'ocr', "
        f"output := '{output}')",
    )
    body = json.loads(row["body"])
    assert body["document_annotation_format"] == declared(output).response_format
    assert request_problems("/v1/ocr", body) == []
    answers, target = tmp_path / "answers.jsonl", tmp_path / "results.parquet"
    page = {"index": 0, "markdown": "# A"}
    lines = [
        {
            "custom_id": str(number),
            "response": {"status_code": 200, "body": {"pages": [page], "document_annotation": said}},
        }
        for number, said in enumerate(('{"title": "A"}', None))
    ]
    answers.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    write_results(
        ended_job(2, endpoint="/v1/ocr"),
        ResultFiles(answers=(answers,), submitted=None, output=output),
        target,
        partial=False,
    )
    found = rows(con, f"FROM ({results_statement([Family(model='', generations=((target,),))], output)}) ORDER BY ALL")
    assert [(row["outcome"], row["content"], row["output"]) for row in found] == [
        ("ok", "# A", {"title": "A"}),
        ("invalid_output", "# A", None),
    ]


#: An answer, the type that it is held against, and what is told: None where it fits.
HELD: dict[str, tuple[str, str, str | None]] = {
    "a comma before a bracket": ('{"a": [1,], "b": 2}', "STRUCT(a INTEGER[], b INTEGER)", "a comma before a bracket"),
    "such a comma in a text": ('{"a": "[1, ]"}', "STRUCT(a VARCHAR)", None),
    "NaN": ('{"a": NaN}', "STRUCT(a DOUBLE)", "NaN"),
    "infinity": ('{"a": -Infinity}', "STRUCT(a DOUBLE)", "NaN"),
    "inf": ('{"a": inf}', "STRUCT(a DOUBLE)", "NaN"),
    "NaN as text": ('{"a": "NaN, inf"}', "STRUCT(a VARCHAR)", None),
    "too large a number": ('{"a": 1e400}', "STRUCT(a DOUBLE)", "a is 1e400, which is no DOUBLE"),
    "too large for FLOAT": ('{"a": -1e39}', "STRUCT(a FLOAT)", "a is -1e39, which is no FLOAT"),
    "a large number": ('{"a": 1e308}', "STRUCT(a DOUBLE)", None),
    "a number as text": ('{"a": "1"}', "STRUCT(a INTEGER)", "a is text, not a number"),
    "true as a number": ('{"a": true}', "STRUCT(a INTEGER)", "a is true or false, not a number"),
    "1 as true": ('{"a": 1}', "STRUCT(a BOOLEAN)", "a is a number, not true or false"),
    "out of range": ('{"a": 300}', "STRUCT(a UTINYINT)", "a is 300, which is no UTINYINT"),
    "below zero": ('{"a": -1}', "STRUCT(a UBIGINT)", "a is -1, which is no UBIGINT"),
    "the largest": ('{"a": 18446744073709551615}', "STRUCT(a UBIGINT)", None),
    "one more": ('{"a": 9223372036854775808}', "STRUCT(a BIGINT)", "which is no BIGINT"),
    "a fraction": ('{"a": 1.5}', "STRUCT(a BIGINT)", "a is 1.5, which is no BIGINT"),
    "too many digits": ('{"a": 12345678.9}', "STRUCT(a DECIMAL(9,2))", "which is no DECIMAL(9,2)"),
    "none of the enum": ('{"a": "c"}', "STRUCT(a ENUM('a', 'b'))", 'a is "c", which is none of the declared values'),
    "an enum's case": ('{"a": "A"}', "STRUCT(a ENUM('a', 'b'))", "none of the declared values"),
    "a day that is none": ('{"a": "2026-02-30"}', "STRUCT(a DATE)", 'a is "2026-02-30", which is no DATE'),
    "a date by name": ('{"a": "epoch"}', "STRUCT(a DATE)", "which is no DATE"),
    "no end of time": ('{"a": "infinity"}', "STRUCT(a TIMESTAMP)", "which is no TIMESTAMP"),
    "before Christ": ('{"a": "2026-01-31 (BC)"}', "STRUCT(a DATE)", "which is no DATE"),
    "a number as a date": ('{"a": 20260131}', "STRUCT(a DATE)", "a is a number, not text"),
    "an hour that is none": ('{"a": "25:00:00"}', "STRUCT(a TIME)", "which is no TIME"),
    "no UUID": ('{"a": "x"}', "STRUCT(a UUID)", 'a is "x", which is no UUID'),
    "a nested field missing": (
        '{"a": {"b": [{"c": 1}, {}]}}',
        "STRUCT(a STRUCT(b STRUCT(c INTEGER)[]))",
        "a.b[1].c is missing",
    ),
    "a nested field too many": (
        '{"a": {"b": 1, "x\\ny": 2}}',
        "STRUCT(a STRUCT(b INTEGER))",
        r'a has a field that was not declared, "x\ny"',
    ),
    "a field twice": ('{"a": 1, "a": 1}', "STRUCT(a INTEGER)", "it has a field twice"),
    "a nested null": ('{"a": {"b": null}}', "STRUCT(a STRUCT(b INTEGER))", None),
    "a struct of null": ('{"a": null}', "STRUCT(a STRUCT(b INTEGER))", None),
    "null in a list": ('{"a": [1, null]}', "STRUCT(a INTEGER[])", "a[1] is null, not a number"),
    "lists in lists": ('{"a": [[1], [2, "x"]]}', "STRUCT(a INTEGER[][])", "a[1][1] is text, not a number"),
    "an empty list": ('{"a": []}', "STRUCT(a INTEGER[])", None),
    "a list too long": ('{"a": [1, 2, 3]}', "STRUCT(a INTEGER[2])", "a has 3 values, not 2"),
    "odd names": ('{"a/b~\'.c": {"$": "x"}}', """STRUCT("a/b~'.c" STRUCT("$" INTEGER))""", "a/b~'.c.$ is text"),
    "half a character": (r'{"a": "x \ud83d, \\ud83d \ud83d\ude00"}', "STRUCT(a VARCHAR)", None),
    "half a character and a comma": (r'{"a": "\ud83d",}', "STRUCT(a VARCHAR)", "it is not valid JSON"),
    "a raw tab": ('{"a": "x\ty"}', "STRUCT(a VARCHAR)", "it is not valid JSON"),
    "a raw control": ('{"a": "x\x01\\ud83d"}', "STRUCT(a VARCHAR)", "it is not valid JSON"),
    "prose": ("sorry, no", "STRUCT(a INTEGER)", 'it is not valid JSON, and begins "sorry, no"'),
    "cut": ('{"a": ', "STRUCT(a INTEGER)", "it is not valid JSON, and begins"),
    "between fences": ('```json\n{"a": 1}\n```', "STRUCT(a INTEGER)", "it is fenced by ```"),
    "blanks": (" \n", "STRUCT(a INTEGER)", "it is empty"),
    "a list": ("[1]", "STRUCT(a INTEGER)", "it is a list, not an object"),
}


@pytest.mark.parametrize(("text", "kind", "told"), HELD.values(), ids=HELD)
def test_what_does_not_fit(text: str, kind: str, told: str | None, tmp_path: Path) -> None:
    """An answer that does not fit its type says which field does not, and why; one that fits has a value."""
    (row,) = results_of([text], kind, tmp_path, called=False)
    if told is None:
        assert (row["outcome"], row["error"]) == ("ok", None)
        assert row["output"] is not None
    else:
        assert (row["outcome"], row["output"]) == ("invalid_output", None)
        assert row["error"].startswith("the answer does not fit the declared output: ")
        assert told in row["error"]


@pytest.mark.parametrize("text", ['{"a": 1,}', "[1,]", "NaN", "-Infinity", '{"a": NaN}', '{"a": "x,]", "b": [inf]}'])
def test_json_that_is_none(text: str, tmp_path: Path) -> None:
    """What is not strictly JSON is no output, whatever DuckDB takes it for, and invalid where JSON was declared."""
    (row,) = results_of([text], None, tmp_path)
    assert (row["outcome"], row["output"], row["content"]) == ("ok", None, text)
    (row,) = results_of([text], '{"type": ["object", "array", "number"]}', tmp_path)
    assert (row["outcome"], row["output"]) == ("invalid_output", None)


#: What answers are made of, in JSON and in prose.
PIECES = st.sampled_from(
    [*'{}[]":,-+.0eat/@Z`~é東 \t\n\r\ufeff\xa0', "12", "E5", "true", "false", "null", "The", "it", "Infinity"]
)


@given(texts=st.lists(st.lists(PIECES).map("".join), min_size=50, max_size=200))
@settings(max_examples=20, deadline=None)
def test_answers_that_are_json_by_chance(texts: list[str]) -> None:
    """Without a declared output, an answer has an output if its text is JSON, whatever it begins with."""
    with duckdb.connect() as con:
        con.execute("CREATE TABLE answers AS SELECT unnest($texts) AS content", {"texts": texts})
        found = con.execute(f"SELECT content, {parsed_sql('content', None)}::VARCHAR FROM answers").fetchall()
    for text, output in found:
        try:
            value = json.loads(text, parse_constant=_refuse)
        except ValueError:
            assert output is None, text
        else:
            assert output is not None, text
            assert json.loads(output) == value


def _refuse(text: str) -> None:
    raise ValueError(text)


SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 2},
        "age": {"type": "integer", "minimum": 0, "exclusiveMaximum": 150},
        "mood": {"enum": ["good", "bad", 1, None, False]},
        "tags": {"type": "array", "items": {"type": "string"}, "maxItems": 2},
        "boss": {"anyOf": [{"$ref": "#/$defs/person"}, {"type": "null"}]},
        "parts": {"type": "array", "items": {"$ref": "#"}},
        "kind": {"const": "x"},
    },
    "required": ["name"],
    "additionalProperties": False,
    "$defs": {"person": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}},
}
AGAINST: list[tuple[Any, str | None]] = [
    ({"name": "Jo"}, None),
    ({"name": "Jo", "age": 3.0, "mood": None, "tags": [], "boss": None, "parts": [{"name": "Al"}], "kind": "x"}, None),
    ({"name": "Jo", "mood": False, "boss": {"name": "x", "more": 1}}, None),
    (5, "it is a number, not an object"),
    ([], "it is a list, not an object"),
    (None, "it is null, not an object"),
    ({}, "name is missing"),
    ({"name": "J"}, 'name is "J", which is shorter than 2'),
    ({"name": None}, "name is null, not text"),
    ({"name": "Jo", "age": 3.5}, "age is 3.5, not a whole number"),
    ({"name": "Jo", "age": True}, "age is true or false, not a whole number"),
    ({"name": "Jo", "age": -1}, "age is -1, which is less than 0"),
    ({"name": "Jo", "age": 150}, "age is 150, which is not less than 150"),
    ({"name": "Jo", "mood": "so"}, 'mood is "so", which is none of the declared values'),
    ({"name": "Jo", "mood": True}, "mood is true, which is none of the declared values"),
    ({"name": "Jo", "tags": ["a", 1]}, "tags[1] is a number, not text"),
    ({"name": "Jo", "tags": ["a", "b", "c"]}, "which is longer than 2"),
    ({"name": "Jo", "boss": {}}, "boss.name is missing"),
    ({"name": "Jo", "boss": "Al"}, "boss is text, not an object"),
    ({"name": "Jo", "parts": [{"name": "Al"}, {}]}, "parts[1].name is missing"),
    ({"name": "Jo", "kind": "y"}, 'kind is "y", which is none of the declared values'),
    ({"name": "Jo", "nick": "J"}, 'it has a field that was not declared, "nick"'),
]


@pytest.mark.parametrize(("answer", "told"), AGAINST, ids=[str(told) for _, told in AGAINST])
def test_answers_against_a_schema(answer: Any, told: str | None, tmp_path: Path) -> None:
    """An answer is held against a declared JSON schema, at every depth, as another validator holds it."""
    assert Draft202012Validator(SCHEMA).is_valid(answer) == (told is None)
    (row,) = results_of([json.dumps(answer)], json.dumps(SCHEMA), tmp_path, called=False)
    if told is None:
        assert (row["outcome"], row["error"], json.loads(row["output"])) == ("ok", None, answer)
    else:
        assert (row["outcome"], row["output"]) == ("invalid_output", None)
        assert told in row["error"]


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"a": True, "b": False}},
        {"type": "object", "properties": {"a": {"type": "nonsense"}}},
        {"type": "object", "properties": {"a": {"type": []}}},
        {"type": "object", "properties": []},
        {"type": "object", "required": "a"},
        {"type": "object", "properties": {"a": {"minimum": "x", "maximum": 1e308, "enum": [[1], {}]}}},
        {"type": "object", "properties": {"a": {"$ref": "https://example.org/schema"}, "c": {"$ref": "#/nowhere/0"}}},
        {"type": "object", "properties": {"a": {"anyOf": []}, "": {"allOf": [{}, True]}}},
        {"type": "object", "properties": {"a'b\0": {"const": "'\0"}}},
        {"$ref": "#"},
        {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}},
        {"type": "json_schema", "json_schema": {"name": "x"}},
        {"type": "json_schema", "json_schema": 5},
    ],
)
def test_odd_schemas(schema: dict[str, Any], tmp_path: Path) -> None:
    """However odd a schema is, what was answered can be read, and is not refused for what the schema does not say."""
    (row,) = results_of(['{"a": 1}'], json.dumps(schema), tmp_path)
    assert (row["outcome"], row["output"], row["error"]) == ("ok", '{"a": 1}', None)
