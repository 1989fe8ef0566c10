"""The command line `duckdb-mistral`: the functions without a connection of one's own, and the local server.

Data goes to standard output, everything else to standard error. Exit status 0 when what was asked was done, 1 when
it was not, 2 for wrong usage.
"""

from __future__ import annotations

import os
import sys

import click

from duckdb_mistral.cli import jobs, programs, sending, upkeep
from duckdb_mistral.cli.outcomes import ExitCode, fail


def main() -> None:
    """Run the command line; never end with a traceback for something that a person can fix."""
    if sys.stdout is None:
        fail("Standard output is closed, so nothing can be printed, and nothing was done. Redirect it to a file.")
    try:
        try:
            cli(prog_name="duckdb-mistral")
        finally:
            sys.stdout.flush()
    except OSError as error:
        if error.filename is not None:
            raise
        # Unwritten output would fail again when Python exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):  # the reader has read enough
            sys.exit(ExitCode.NOT_DONE)
        fail(f"Standard output cannot be written: {error.strerror}. The printed output is incomplete.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="duckdb-mistral")
def cli() -> None:
    """Mistral's Batch API for tables: submit prompts, wait, and read the answers.

    The API key comes from MISTRAL_API_KEY. `duckdb-mistral demo` needs none.
    """


for _command in (
    programs.demo,
    programs.emulator,
    programs.shell,
    programs.extension,
    programs.helper,
    programs.dbt_package,
    sending.submit,
    sending.estimate,
    sending.preview,
    jobs.status,
    jobs.wait,
    jobs.results,
    jobs.cost,
    jobs.cancel,
    jobs.retry,
    upkeep.doctor,
    upkeep.clean,
    upkeep.move,
):
    cli.add_command(_command)
