"""The loadable files that come with the package, one for each of DuckDB's platforms."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from duckdb_mistral.errors import MistralBatchError

NATIVE = Path(__file__).resolve().parent / "native"
NAME = "mistral.duckdb_extension"


def extension_file(platform: str) -> Path:
    """Return the extension for a platform, by DuckDB's name for it; raises MistralBatchError if there is none."""
    file = NATIVE / platform / NAME
    if file.is_file():
        return file
    raise MistralBatchError(
        f"This installation of duckdb-mistral has no DuckDB extension for the platform {platform}, so the duckdb shell "
        "and other clients cannot have the functions. Releases have it for Linux and macOS; an installation from "
        "source builds it if a C compiler or PyPI's ziglang runs. What works here: Python "
        "(duckdb_mistral.connect()), Harlequin (harlequin -a mistral), dbt, and the commands that duckdb-mistral "
        "--help lists."
    )


def prepared_extension() -> Path:
    """Return the extension for this machine, which any client may load.

    Writes the path of this Python beside it, with which the extension starts its helper. Raises MistralBatchError if
    there is no extension, or if the helper would not be found.
    """
    file = extension_file(platform())
    named = file.with_name("helper")
    told = f"{sys.executable}\n"
    try:
        if not named.is_file() or named.read_text(encoding="utf-8") != told:
            unfinished = named.with_name(f"helper-{os.getpid()}")
            unfinished.write_text(told, encoding="utf-8")
            unfinished.replace(named)
    except OSError as error:
        # The extension then uses the command on the PATH.
        if shutil.which("duckdb-mistral") is None:
            raise MistralBatchError(
                f"{named}, which tells the extension where this Python is, cannot be written ({error.strerror}), and "
                "duckdb-mistral is not on the PATH either. Put it there, or run this once as the user who owns the "
                "installation."
            ) from error
    return file


def platform() -> str:
    """Return DuckDB's name for the platform of this Python."""
    import duckdb

    with duckdb.connect(":memory:") as connection:
        row = connection.execute("FROM pragma_platform()").fetchone()
    return str(row[0]) if row else "unknown"
