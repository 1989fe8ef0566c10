"""From columns to bodies: quotes, and params beside columns."""

from __future__ import annotations

from typing import Any

import duckdb
import pytest

from duckdb_mistral.api.endpoints import CHAT, endpoint_of
from duckdb_mistral.errors import ArgumentError
from duckdb_mistral.requests.columns import RequestColumns

ENDPOINT = endpoint_of(CHAT)


def body_of(params: dict[str, Any], select: str, system: str | None = None) -> Any:
    """Return problem and body of one row, as DuckDB makes them."""
    columns = RequestColumns(ENDPOINT, system=system, params=params)
    with duckdb.connect() as engine:
        return engine.execute(
            f"WITH source AS (SELECT {columns.known_columns} WHERE false UNION ALL BY NAME (SELECT {select})) "
            f"SELECT {columns.problem}, {columns.body} FROM {columns.taken('source')}"
        ).fetchone()


def test_quotes_in_every_place() -> None:
    """Quotes in names and values of params, and in the system message, stay what they are."""
    problem, body = body_of({'it\'s "a"': 'it\'s "b" \\ ${x}'}, "'1' AS custom_id, 'hi' AS prompt", "it's")
    assert problem is None
    assert body == (
        '{"messages":[{"role":"system","content":"it\'s"},{"role":"user","content":"hi"}],'
        '"it\'s \\"a\\"":"it\'s \\"b\\" \\\\ ${x}"}'
    )


def test_names_of_params() -> None:
    """A field's name in params may have any case; another name is sent as it is."""
    _, body = body_of({"Max_Tokens": 5, "X_New": 1, "nothing": None}, "'1' AS custom_id, 'hi' AS prompt")
    assert body.endswith(',"max_tokens":5,"X_New":1}')


@pytest.mark.parametrize("name", ["prompt", "messages", "body", "custom_id", "system", "Messages"])
def test_params_that_are_columns(name: str) -> None:
    """What is a column of the source, or an argument, cannot be in params."""
    with pytest.raises(ArgumentError, match=f"params cannot hold {name}"):
        RequestColumns(ENDPOINT, system=None, params={name: "x"})


@pytest.mark.parametrize(
    ("name", "text"), [("temperature", "-Infinity"), ("n", "[1, NaN]"), ("metadata", '{"a": NaN}')]
)
def test_params_that_json_cannot_hold(name: str, text: str) -> None:
    """Text in params that is read as JSON may be no NaN and no infinite number, at any depth."""
    with pytest.raises(ArgumentError, match=rf"params\.{name} holds what JSON cannot hold: NaN, an infinite number"):
        RequestColumns(ENDPOINT, system=None, params={name: text})
