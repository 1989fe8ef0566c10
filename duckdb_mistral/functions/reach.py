"""Whether the caller's connection can read the files of results: DuckDB may be told to reach no files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from duckdb_mistral.duck.quoting import literal
from duckdb_mistral.errors import SettingError

if TYPE_CHECKING:
    from collections.abc import Sequence


def refuse_out_of_reach(home: Path, allowed: Sequence[str] | None) -> None:
    """Refuse a connection that cannot read results under `home`; raise SettingError, which says what lets it.

    `allowed` are the directories that DuckDB may reach, None where it may reach all.
    """
    directory = home.absolute()
    if allowed is None or any(directory.is_relative_to(Path(one).absolute()) for one in allowed):
        return
    statement = f"SET allowed_directories = [{literal(f'{directory}/')}]"
    raise SettingError(
        f"DuckDB's enable_external_access is false on this connection, so it could not read results, which are files "
        f"under {directory}. Run {statement} before SET enable_external_access = false, on a new connection: DuckDB "
        "changes neither afterwards. Nothing was sent."
    )
