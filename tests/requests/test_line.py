"""The SQL of a request line, as DuckDB runs it."""

from __future__ import annotations

import json

import duckdb
import pytest

from duckdb_mistral.requests.line import LINE_BREAKS, request_line


def line_of(custom_id: str, body: str, kind: str) -> str:
    """Return the line of one request, whose body is a column of a type."""
    query = f"SELECT {request_line()} AS line FROM (SELECT $custom_id AS custom_id, $body::{kind} AS body)"
    ((line,),) = duckdb.execute(query, {"custom_id": custom_id, "body": body}).fetchall()
    assert isinstance(line, str)
    return line


def test_the_body_as_it_is() -> None:
    """The body stands in the line as it was written, with its spaces and numbers, and the custom_id as JSON."""
    body = '{"x": 1.50, "y":1e400,"z":"é\\u00e9日"}'
    assert line_of('a"\n\\é', body, "VARCHAR") == f'{{"custom_id":"a\\"\\n\\\\é","body":{body}}}\n'


@pytest.mark.parametrize("kind", ["VARCHAR", "JSON"])
@pytest.mark.parametrize("character", LINE_BREAKS)
def test_line_breaks_of_other_alphabets(character: str, kind: str) -> None:
    """Characters at which some readers break lines are escaped wherever they are, and mean the same."""
    for custom_id in (f"{character}\x00{character}", "a"):
        for prompt in (f"a{character}b{''.join(LINE_BREAKS)}'\"é\x00{character}", "b"):
            body = json.dumps({"prompt": prompt}, ensure_ascii=False)
            line = line_of(custom_id, body, kind)
            assert len(line.splitlines()) == 1
            assert json.loads(line) == {"custom_id": custom_id, "body": {"prompt": prompt}}


@pytest.mark.parametrize("kind", ["VARCHAR", "JSON"])
def test_the_line_is_text(kind: str) -> None:
    """A line is VARCHAR, whatever the body's type: as JSON it would be parsed again."""
    query = f"SELECT typeof({request_line()}) FROM (SELECT 'a' AS custom_id, '{{}}'::{kind} AS body)"
    assert duckdb.execute(query).fetchall() == [("VARCHAR",)]
