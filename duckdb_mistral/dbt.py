"""The functions in dbt: name this module among the plugins of a dbt-duckdb profile.

    plugins:
      - module: duckdb_mistral.dbt
        config: {model: mistral-small-latest}

`config` takes the settings of `duckdb_mistral.register()`; what is not given comes from the environment.
"""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

from dbt.adapters.duckdb.plugins import BasePlugin
from dbt_common.exceptions import DbtRuntimeError

from duckdb_mistral.errors import MistralBatchError
from duckdb_mistral.plugin import register
from duckdb_mistral.settings import Settings

if TYPE_CHECKING:
    import duckdb


class Plugin(BasePlugin):
    """Give every model the mistral functions."""

    def initialize(self, plugin_config: dict[str, Any]) -> None:
        """Check the settings; raise DbtRuntimeError with the sentence of one that cannot be used."""
        # dbt-duckdb hands down the profile's own DuckDB settings too, in one dictionary with those of `config`.
        of_duckdb = set((self.creds.settings if self.creds else None) or ()) - {
            field.name for field in fields(Settings)
        }
        self._settings = {name: value for name, value in plugin_config.items() if name not in of_duckdb}
        try:
            Settings.resolve(self._settings)
        except MistralBatchError as error:
            raise DbtRuntimeError(str(error)) from error

    def configure_connection(self, conn: duckdb.DuckDBPyConnection) -> None:
        """Create the functions on the database."""
        register(conn, **self._settings)

    def configure_cursor(self, cursor: duckdb.DuckDBPyConnection) -> None:
        """Create the macros, which are TEMP, on the connection of a model."""
        register(cursor)
