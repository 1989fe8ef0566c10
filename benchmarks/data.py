"""What the contenders are given: a table of prompts, and result files as the API writes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import duckdb

if TYPE_CHECKING:
    from pathlib import Path

#: The text that prompts are cut out of: words, with the characters that JSON has to escape here and there.
WORDS = (
    "the order arrived late and the box was open inside I found a note that said please call us but nobody "
    'answered "really" can you tell me when the refund comes\nthank you for the quick help with my invoice '
    "straße déjà naïve 東京 it works on the second try but not after an update of the application since monday"
)


def prompt_sql(number: str, length: int) -> str:
    """Return an SQL expression: a prompt of about `length` bytes, another one for every `number`.

    `getvariable('text')` has to hold the text of `make_text`.
    """
    return f"{number} || ' ' || substr(getvariable('text'), 1 + (hash({number}) % 50000)::BIGINT, {length - 10})"


def make_text(connection: duckdb.DuckDBPyConnection) -> None:
    """Set the variable `text` that prompts are cut out of."""
    words = WORDS.split(" ")
    connection.execute(
        """SET VARIABLE text = (
          SELECT string_agg($words[1 + (hash(range * 7919) % len($words))::BIGINT], ' ' ORDER BY range)
          FROM range(14000)
        )""",
        {"words": words},
    )


def make_staging(path: Path, rows: int, length: int) -> None:
    """Write a database with the table `staging`: custom_id and prompt, both VARCHAR."""
    with duckdb.connect(str(path)) as connection:
        make_text(connection)
        connection.execute(
            f"CREATE TABLE staging AS SELECT 'row-' || range AS custom_id, {prompt_sql('range', length)} AS prompt "
            f"FROM range({rows})"
        )


def make_result_file(path: Path, rows: int, length: int) -> None:
    """Write the output file of a job with an answer of about `length` bytes per request, in no order."""
    with duckdb.connect(":memory:") as connection:
        connection.execute("SET preserve_insertion_order = false")
        make_text(connection)
        connection.execute(
            f"""COPY (
              SELECT 'batch-' || md5(range::VARCHAR) AS id, 'row-' || range AS custom_id,
                {{'status_code': 200, 'body': {{
                  'id': md5('answer' || range), 'object': 'chat.completion', 'created': 1761577934,
                  'model': 'mistral-small-latest',
                  'usage': {{'prompt_tokens': 10, 'completion_tokens': 128, 'total_tokens': 138}},
                  'choices': [{{'index': 0, 'finish_reason': 'stop', 'message': {{
                    'role': 'assistant', 'content': {prompt_sql("range", length)}, 'tool_calls': NULL
                  }}}}]
                }}}} AS response, NULL AS error
              FROM range({rows})
            ) TO '{path}' (FORMAT json)"""
        )


def make_request_file(path: Path, rows: int, length: int) -> None:
    """Write the input file that the result file of `make_result_file` answers."""
    with duckdb.connect(":memory:") as connection:
        make_text(connection)
        connection.execute(
            f"COPY (SELECT 'row-' || range AS custom_id, {{'messages': [{{'role': 'user', 'content': "
            f"{prompt_sql('range', length)}}}]}} AS body FROM range({rows})) TO '{path}' (FORMAT json)"
        )
