"""Errors as servers, proxies and people write them: each becomes one sentence."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import duckdb
from support import ended_job, write_results

from duckdb_mistral.results.convert import ResultFiles

if TYPE_CHECKING:
    from pathlib import Path

PAGE = "<!DOCTYPE html>\n<html><head><style>h1 {}</style><title>502 Bad Gateway</title></head><body>…</body></html>"
VIOLATIONS = [
    {"type": "missing", "loc": ["body", "messages"], "msg": "Field required", "input": {}},
    {"type": "int_type", "loc": ["body", "tools", 0, "n"], "msg": "Input should be an integer", "input": "x"},
]
SAID = "body.messages: Field required; body.tools.0.n: Input should be an integer"
BODIES: dict[str, tuple[Any, str]] = {
    "Mistral's own": ({"object": "error", "message": "Bad input", "type": "invalid", "param": None}, "Bad input"),
    "violations in a message": ({"object": "error", "message": {"detail": VIOLATIONS}}, SAID),
    "violations": ({"detail": VIOLATIONS}, SAID),
    "violations and nothing around": (VIOLATIONS, SAID),
    "a detail": ({"detail": "Not Found"}, "Not Found"),
    "a nested message": ({"error": {"message": "too long", "type": "x"}}, "too long"),
    "deeply nested": ({"error": {"error": {"message": {"detail": {"error": "deep"}}}}}, "deep"),
    "an error as text": ({"error": "too long"}, "too long"),
    "a list of texts": ({"errors": ["one", "two"]}, "one; two"),
    "a list of messages": ({"errors": [{"message": "one"}, {"error": "two"}]}, "one; two"),
    "a null before the words": ({"message": None, "error": "", "detail": "these"}, "these"),
    "a page": (PAGE, "502 Bad Gateway"),
    "a page without a title": ("<html><body><p>Sorry,\n try <b>later</b></p></body></html>", "Sorry, try later"),
    "text": ("upstream connect error\n or disconnect ", "upstream connect error or disconnect"),
    "JSON in text": (json.dumps({"message": "inner"}), "inner"),
    "a problem of RFC 9457": ({"type": "about:blank", "title": "Too Many Requests"}, "Too Many Requests"),
    "other words": ({"code": 7, "why": "so"}, '{"code":7,"why":"so"}'),
    "nothing": (None, "HTTP 502"),
    "an empty text": ("", "HTTP 502"),
    "an empty object": ({}, "HTTP 502"),
    "an empty list": ([], "HTTP 502"),
    "blanks": ("  \n", "HTTP 502"),
}


def read(directory: Path, lines: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """Return outcome, error and content of result lines, which are numbered."""
    answers, target = directory / "answers.jsonl", directory / "results.parquet"
    numbered = [json.dumps({"custom_id": f"{number:03}"} | line) + "\n" for number, line in enumerate(lines)]
    answers.write_text("".join(numbered), encoding="utf-8")
    files = ResultFiles(answers=(answers,), submitted=None)
    write_results(ended_job(len(lines)), files, target, partial=False)
    with duckdb.connect() as engine:
        return engine.execute(
            f"SELECT outcome, error, content FROM read_parquet('{target}') ORDER BY custom_id"
        ).fetchall()


def test_bodies(tmp_path: Path) -> None:
    """The body of a refused request becomes one sentence."""
    found = read(tmp_path, [{"response": {"status_code": 502, "body": body}} for body, _ in BODIES.values()])
    assert dict(zip(BODIES, found, strict=True)) == {name: ("error", said, None) for name, (_, said) in BODIES.items()}


def test_errors(tmp_path: Path) -> None:
    """So does what stands as a line's error; without words there is none."""
    said = {name: words for name, (_, words) in BODIES.items()}
    nothing = [name for name, words in said.items() if words == "HTTP 502"]
    found = read(tmp_path, [{"response": None, "error": error} for error, _ in BODIES.values()])
    expected = {name: ("error", words, None) for name, words in said.items()}
    for name in nothing:
        expected[name] = ("error", "the result line holds no response", None)
    assert dict(zip(BODIES, found, strict=True)) == expected


NOTHING: list[Any] = [
    None,
    False,
    "",
    " \n",
    {},
    [],
    0,
    200,
    "null",
    "None",
    "{}",
    [None],
    {"message": None, "code": None},
    {"message": ""},
    {"code": 200},
    {"code": "200", "message": "OK"},
    {"error": {"message": "", "details": []}},
    {"object": "error", "message": "", "type": None, "param": None, "code": None},
]
SOMETHING: list[tuple[Any, str]] = [
    ("nullable", "nullable"),
    (True, "true"),
    (2000, "2000"),
    ({"code": 500}, '{"code":500}'),
    ({"code": 200.5}, '{"code":200.5}'),
    ({"message": "", "type": "timeout"}, '{"message":"","type":"timeout"}'),
    ({"message": 'a "quoted": null'}, 'a "quoted": null'),
]
ANSWER = {"status_code": 200, "body": {"choices": [{"message": {"content": "hi"}}]}}


def test_errors_that_say_nothing(tmp_path: Path) -> None:
    """An error that says nothing takes no answer away."""
    found = read(tmp_path, [{"response": ANSWER, "error": error} for error in NOTHING])
    assert found == [("ok", None, "hi")] * len(NOTHING)


def test_errors_beside_an_answer(tmp_path: Path) -> None:
    """An error that says something counts, even beside an answer."""
    found = read(tmp_path, [{"response": ANSWER, "error": error} for error, _ in SOMETHING])
    assert found == [("error", said, "hi") for _, said in SOMETHING]


def test_long_errors_are_cut(tmp_path: Path) -> None:
    """An error is a sentence, not a book."""
    ((outcome, error, _),) = read(tmp_path, [{"response": {"status_code": 500, "body": "word " * 10_000}}])
    assert outcome == "error"
    assert len(error) == 2000
