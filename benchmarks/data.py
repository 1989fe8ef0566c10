"""What the contenders are given: a table of prompts, and result files as the API writes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa

if TYPE_CHECKING:
    from pathlib import Path

#: What texts are made of: words, with the characters that JSON has to escape here and there.
WORDS = (
    "the order arrived late and the box was open inside I found a note that said please call us but nobody "
    'answered "really" can you tell me when the refund comes\nthank you for the quick help with my invoice '
    "straße déjà naïve 東京 it works on the second try but not after an update of the application since monday"
)


#: A text is put together from this many phrases, out of so many that it compresses as prose does.
PHRASES_EACH = 8
PHRASES = 1 << 14
#: DuckDB hands rows over in this many.
VECTOR = 2048


def text_sql(number: str) -> str:
    """Return an SQL expression: a text, another one for every `number`; `make_phrases` says how long."""
    picked = (
        f"phrases[1 + (hash({number} * {PHRASES_EACH} + {place}) % {PHRASES})::BIGINT]" for place in range(PHRASES_EACH)
    )
    return f"{number} || ' ' || {' || '.join(picked)}"


def make_phrases(connection: duckdb.DuckDBPyConnection, length: int) -> None:
    """Make the temporary table `all_phrases` with the list `phrases`, so that texts have about `length` bytes."""
    each = length // PHRASES_EACH - 1
    count = each // 3 + 2
    connection.execute(
        f"""CREATE OR REPLACE TEMP TABLE all_phrases AS
        SELECT list(phrase ORDER BY number) AS phrases FROM (
          SELECT
            number,
            substr(string_agg($words[1 + (hash(number * {count} + place) % len($words))::BIGINT], ' '), 1, {each})
            || ' ' AS phrase
          FROM range({PHRASES}) AS numbers(number), range({count}) AS places(place) GROUP BY number
        )""",
        {"words": WORDS.split(" ")},
    )


def make_staging(path: Path, rows: int, length: int, *, storage: str | None = None) -> None:
    """Write a database with the table `staging`: custom_id and prompt, both VARCHAR.

    `storage` is the oldest version of DuckDB that can open it.
    """
    config: dict[str, Any] = {} if storage is None else {"storage_compatibility_version": storage}
    with duckdb.connect(str(path), config=config) as connection:
        make_phrases(connection, length)
        connection.execute(f"CREATE TABLE staging AS {staging_sql(rows)}")


def staging_sql(rows: int) -> str:
    """Return the SELECT of the rows of `staging`; it needs `all_phrases`."""
    return f"SELECT 'row-' || range AS custom_id, {text_sql('range')} AS prompt FROM range({rows}), all_phrases"


def make_result_file(path: Path, rows: int, length: int) -> None:
    """Write the output file of a job with an answer of about `length` bytes per request, in no order."""
    with duckdb.connect(":memory:") as connection:
        connection.execute("SET preserve_insertion_order = false")
        make_phrases(connection, length)
        connection.execute(
            f"""COPY (
              SELECT 'batch-' || md5(range::VARCHAR) AS id, 'row-' || range AS custom_id,
                {{'status_code': 200, 'body': {{
                  'id': md5('answer' || range), 'object': 'chat.completion', 'created': 1761577934,
                  'model': 'mistral-small-latest',
                  'usage': {{'prompt_tokens': 10, 'completion_tokens': 128, 'total_tokens': 138}},
                  'choices': [{{'index': 0, 'finish_reason': 'stop', 'message': {{
                    'role': 'assistant', 'content': {text_sql("range")}, 'tool_calls': NULL
                  }}}}]
                }}}} AS response, NULL AS error
              FROM range({rows}), all_phrases
            ) TO '{path}' (FORMAT json)"""
        )


def make_request_file(path: Path, rows: int, length: int) -> None:
    """Write the input file that the result file of `make_result_file` answers."""
    with duckdb.connect(":memory:") as connection:
        make_phrases(connection, length)
        connection.execute(
            "COPY (SELECT custom_id, {'messages': [{'role': 'user', 'content': prompt}]} AS body "
            f"FROM ({staging_sql(rows)})) TO '{path}' (FORMAT json)"
        )


def make_keys_file(requests: Path, rows: int) -> None:
    """Write the keys beside the input file of `make_request_file`, as a submit does."""
    from duckdb_mistral.requests.keys import KEYS
    from duckdb_mistral.state.names import keys_path

    with pa.OSFile(str(keys_path(requests)), "wb") as file, pa.ipc.new_file(file, KEYS) as writer:
        for start in range(0, rows, VECTOR):
            numbers = range(start, min(rows, start + VECTOR))
            names = pa.array([f"row-{number}" for number in numbers])
            writer.write_batch(pa.record_batch([names, names], schema=KEYS))
