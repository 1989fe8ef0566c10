"""Whether the caller's connection can read the files of results: DuckDB may be told to reach no files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from duckdb_mistral.duck.qualifying import qualified
from duckdb_mistral.duck.quoting import literal
from duckdb_mistral.errors import SettingError

if TYPE_CHECKING:
    from collections.abc import Sequence


def reaches(home: Path, allowed: Sequence[str] | None) -> bool:
    """Tell whether a connection may read files under `home`.

    `allowed` are the directories that DuckDB may reach, None where it may reach all.
    """
    directory = home.absolute()
    return allowed is None or any(directory.is_relative_to(Path(one).absolute()) for one in allowed)


def look_sql(home: Path, allowed: Sequence[str] | None) -> str:
    """Return the SQL of a join of one row with a look at `home`, '' where `refuse_out_of_reach` refuses it anyway.

    No setting tells of the file systems that disabled_filesystems names: DuckDB refuses to plan the look, and so the
    statement that it stands in.
    """
    if not reaches(home, allowed):
        return ""
    return qualified(f", (SELECT count(*) AS reached FROM glob({literal(f'{home.absolute()}/*')}))")


def refuse_out_of_reach(home: Path, allowed: Sequence[str] | None) -> None:
    """Refuse a connection that may not read files under `home`; raise SettingError, which says what lets it."""
    if reaches(home, allowed):
        return
    directory = home.absolute()
    statement = f"SET allowed_directories = [{literal(f'{directory}/')}]"
    raise SettingError(
        f"DuckDB's enable_external_access is false on this connection, so it could not read results, which are files "
        f"under {directory}. Run {statement} before SET enable_external_access = false, on a new connection: DuckDB "
        "changes neither afterwards. Nothing was sent."
    )
