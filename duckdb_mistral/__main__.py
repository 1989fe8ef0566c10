"""The command line, as `python -m duckdb_mistral`."""

from __future__ import annotations

from duckdb_mistral.cli.commands import main

if __name__ == "__main__":
    main()
