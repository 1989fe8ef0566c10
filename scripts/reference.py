"""Write docs/reference.md from the product itself: the functions' COMMENTs, `--help`, the settings, the errors.

Run `make reference` after one of them has changed; a test compares the two. reference.toml says what a parameter, a
word or a setting means; a missing meaning, or one for something that does not exist, is an error.
"""

from __future__ import annotations

import inspect
import re
import tempfile
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb_mistral
from duckdb_mistral import errors
from duckdb_mistral.api.endpoints import USUAL_MODELS, all_endpoints
from duckdb_mistral.cli.commands import cli
from duckdb_mistral.cli.outcomes import ExitCode
from duckdb_mistral.duck.sql_files import macro_files, macro_text
from duckdb_mistral.jobs.report import Status
from duckdb_mistral.settings import ENVIRONMENT, Settings

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import click
    import duckdb

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "docs" / "reference.md"
ONE_ROW = "'SELECT 1 AS custom_id, ''a prompt'' AS prompt'"
#: How each function is called to see its columns; binding sends nothing.
CALLS = {
    "mistral_batch_submit": f"mistral_batch_submit({ONE_ROW})",
    "mistral_batch_status": "mistral_batch_status()",
    "mistral_batch_wait": "mistral_batch_wait(NULL)",
    "mistral_batch_results": "mistral_batch_results()",
    "mistral_batch_cancel": "mistral_batch_cancel(NULL)",
    "mistral_batch_retry": "mistral_batch_retry(NULL)",
    "mistral_batch_preview": f"mistral_batch_preview({ONE_ROW})",
    "mistral_batch_estimate": f"mistral_batch_estimate({ONE_ROW})",
    "mistral_batch_cost": "mistral_batch_cost(NULL)",
    "mistral_batch_jobs": "mistral_batch_jobs()",
    "mistral_models": "mistral_models()",
}
#: The meanings of names that the product itself does not explain.
MEANINGS = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))


def rendered() -> str:
    """Return the text of reference.md."""
    parts = [
        "# Reference",
        "This page is generated from the product itself by `make reference`; a test checks that it is up to date.",
        *functions(),
        *meanings(),
        *endpoints(),
        *settings(),
        *command_line(),
        *error_classes(),
    ]
    return "\n\n".join(parts) + "\n"


def table(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Return a Markdown table."""
    lines = [heads, tuple("---" for _ in heads), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def functions() -> Iterator[str]:
    """Yield the functions: signature, COMMENT, parameters, columns."""
    yield "## Functions"
    yield "All are table functions: `FROM mistral_batch_status()`. Parameters are named with `:=`."
    with tempfile.TemporaryDirectory() as home, duckdb_mistral.connect(settings={"home": home}) as con:
        found = dict(
            con.execute(
                "SELECT function_name, any_value(comment) FROM duckdb_functions() "
                "WHERE function_name LIKE 'mistral%' AND NOT internal GROUP BY ALL ORDER BY ALL"
            ).fetchall()
        )
        signatures = dict(signatures_of("\n".join(macro_text(path) for path in macro_files())))
        if not set(CALLS) == set(found) == set(signatures):
            raise ValueError(f"The functions are {sorted(found)}; CALLS has {sorted(CALLS)}.")
        used = set()
        for name in CALLS:
            parameters = signatures[name]
            used |= {parameter for parameter, _ in parameters}
            yield f"### {name}"
            yield "```text\n" + signature(name, parameters) + "\n```"
            yield found[name]
            if parameters:
                yield table(("parameter", "default", "meaning"), [told(name, *parameter) for parameter in parameters])
            yield "Columns:"
            yield table(("column", "type"), [(f"`{column}`", f"`{kind}`") for column, kind in columns(con, name)])
        if used != set(MEANINGS["parameters"]):
            raise ValueError(f"Of no function: {set(MEANINGS['parameters']) - used}")


def signatures_of(macros: str) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Yield each macro's name with its parameters and their defaults, '' if there is none."""
    for name, text in re.findall(r"CREATE OR REPLACE TEMP MACRO (\w+)\((.*?)\) AS TABLE", macros, re.DOTALL):
        given = [part.strip().partition(" := ") for part in text.split(",") if part.strip()]
        yield name, [(parameter, default) for parameter, _, default in given]


def signature(name: str, parameters: list[tuple[str, str]]) -> str:
    """Return how a function is called, on one line if it fits, otherwise with a line per parameter."""
    said = [f"{parameter} := {default}" if default else parameter for parameter, default in parameters]
    line = f"{name}({', '.join(said)})"
    return line if len(line) < 90 else f"{name}(\n  " + ",\n  ".join(said) + "\n)"


def told(name: str, parameter: str, default: str) -> tuple[str, str, str]:
    """Return the table row of a parameter."""
    meaning = MEANINGS["parameters_of"].get(name, {}).get(parameter) or MEANINGS["parameters"][parameter]
    return f"`{parameter}`", f"`{default}`" if default else "required", meaning


def columns(con: duckdb.DuckDBPyConnection, name: str) -> list[tuple[str, str]]:
    """Return the columns of a function with their types."""
    described = con.execute(f"SELECT column_name, column_type FROM (DESCRIBE FROM {CALLS[name]})").fetchall()
    return [(column, kind.replace('"', "")) for column, kind in described]


def meanings() -> Iterator[str]:
    """Yield the columns of source, and the words of status and outcome."""
    yield "### The columns of source"
    yield table(("column", "meaning"), [(named(name), meaning) for name, meaning in MEANINGS["source_columns"].items()])
    yield (
        "Columns that are not fields of the endpoint's body are not sent; the note of `mistral_batch_estimate` lists "
        "them. A column that looks like a misspelt field (`max_token`), or has another API's name for one (`seed`), is "
        "an error that names the field meant. So is a column that can hardly be data (`output_dimension` in a chat)."
    )
    if set(MEANINGS["statuses"]) != {str(status) for status in Status}:
        raise ValueError("reference.toml does not name the statuses of a job.")
    yield "### The words of status"
    yield table(("status", "meaning"), [(f"`{name}`", meaning) for name, meaning in MEANINGS["statuses"].items()])
    yield "Any other status is shown as the API reports it; such a job has ended once it has a `completed_at`."
    yield "### The words of outcome"
    yield table(("outcome", "meaning"), [(f"`{name}`", meaning) for name, meaning in MEANINGS["outcomes"].items()])


def named(name: str) -> str:
    """Return a name as code, and words as they are."""
    return name if " " in name else f"`{name}`"


def endpoints() -> Iterator[str]:
    """Yield the endpoints and the fields of their bodies."""
    yield "## Endpoints"
    yield (
        "Name an endpoint by its path, with or without `/v1/`. The columns of `source` that hold a request's content "
        "are listed first. The other fields come from the API's own OpenAPI text, and can be columns or fields of "
        "`params`."
    )
    yield table(
        ("endpoint", "model by default", "content", "other fields"),
        [
            (
                f"`{path}`",
                f"`{USUAL_MODELS[path]}`" if path in USUAL_MODELS else "the setting",
                listed(endpoint.content_columns),
                listed(name for name in endpoint.option_fields if name != "model"),
            )
            for path, endpoint in all_endpoints().items()
        ],
    )


def listed(names: Iterable[str]) -> str:
    """Return names as code, with commas."""
    return ", ".join(f"`{name}`" for name in names)


def settings() -> Iterator[str]:
    """Yield the settings."""
    if set(MEANINGS["settings"]) != set(ENVIRONMENT):
        raise ValueError(f"The settings are {sorted(ENVIRONMENT)}; reference.toml has {sorted(MEANINGS['settings'])}.")
    defaults = {setting.name: setting.default for setting in fields(Settings)} | {"home": None}
    yield "## Settings"
    yield (
        "Pass settings to `register(con, …)` or `connect(…, settings={…})`, or set them in the environment. A setting "
        "that is passed overrides the environment."
    )
    yield table(
        ("setting", "environment variable", "default", "meaning"),
        [
            (f"`{name}`", f"`{ENVIRONMENT[name]}`", as_default(defaults[name]), meaning)
            for name, meaning in MEANINGS["settings"].items()
        ],
    )


def as_default(value: object) -> str:
    """Return a default as a person writes it."""
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else f"{value:g}" if isinstance(value, float) else f"`{value}`"


def command_line() -> Iterator[str]:
    """Yield the `--help` of every command."""
    yield "## Command line"
    codes = ", ".join(f"{code.value} {code.name.lower().replace('_', ' ')}" for code in ExitCode)
    yield (
        "`duckdb-mistral`, or `python -m duckdb_mistral`. Data goes to standard output, everything else to standard "
        f"error. Exit status: {codes}."
    )
    root = context_of(cli, "duckdb-mistral")
    yield "```text\n" + cli.get_help(root) + "\n```"
    for name, command in sorted((name, command) for name, command in cli.commands.items() if not command.hidden):
        yield f"### duckdb-mistral {name}"
        yield "```text\n" + command.get_help(context_of(command, name, root)) + "\n```"


def context_of(command: click.Command, name: str, parent: click.Context | None = None) -> click.Context:
    """Return the context of a command, whose help is then always 100 columns wide."""
    return command.make_context(name, [], parent, resilient_parsing=True, terminal_width=100, max_content_width=100)


def error_classes() -> Iterator[str]:
    """Yield the errors, as the classes that Python code can catch."""
    yield "## Errors"
    yield (
        "Every message is a sentence that says what happened, to what, and what to do next. In SQL an error arrives as "
        "DuckDB's own exception; Python code that calls the package can catch these."
    )
    classes = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if kind.__module__ == errors.__name__]
    order = {name: number for number, name in enumerate(re.findall(r"\w+Error", errors.__doc__ or ""))}
    yield table(
        ("error", "is a", "when"),
        [
            (
                f"`{kind.__name__}`",
                f"`{kind.__base__.__name__ if kind.__base__ else ''}`",
                " ".join((kind.__doc__ or "").split("\n\n")[0].split()),
            )
            for kind in sorted(classes, key=lambda kind: order[kind.__name__])
        ],
    )


if __name__ == "__main__":
    TARGET.write_text(rendered(), encoding="utf-8")
