"""How a command ends: its exit status, and the sentence of what was not done."""

from __future__ import annotations

import sys
from enum import IntEnum
from functools import wraps
from typing import TYPE_CHECKING, Any, NoReturn

import click

from duckdb_mistral.cli.command_words import in_command_words
from duckdb_mistral.errors import MistralBatchError
from duckdb_mistral.printable import printable

if TYPE_CHECKING:
    from collections.abc import Callable

    import duckdb


class ExitCode(IntEnum):
    """What the exit status of the command line means."""

    DONE = 0
    NOT_DONE = 1
    WRONG_USAGE = 2
    #: Only with --exit-status.
    NOT_ENDED = 3
    SOME_FAILED = 4


def told_errors(command: Callable[..., Any]) -> Callable[..., Any]:
    """If a command fails, print its error's sentence on standard error and exit."""

    @wraps(command)
    def guarded(*arguments: Any, **options: Any) -> Any:
        import duckdb

        try:
            return command(*arguments, **options)
        except MistralBatchError as error:
            fail(in_command_words(str(error)))
        except duckdb.Error as error:
            fail(sentence_of(error))
        except KeyboardInterrupt:
            fail("Interrupted. Submitted jobs run on; the same command continues from here.")

    return guarded


def fail(message: str, status: ExitCode = ExitCode.NOT_DONE) -> NoReturn:
    """Say what was not done, and exit."""
    click.echo(printable(message), err=True)
    sys.exit(status)


def sentence_of(error: duckdb.Error) -> str:
    """Return the sentence of an error without DuckDB's prefix, and with advice in the command line's terms."""
    return in_command_words(str(error).removeprefix("Invalid Input Error: "))
