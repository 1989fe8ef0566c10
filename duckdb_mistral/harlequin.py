"""The functions in Harlequin, the SQL editor for the terminal: `harlequin -a mistral my.duckdb`.

The adapter is Harlequin's own for DuckDB, with the functions registered, listed in the catalog and completed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harlequin.autocomplete.completion import HarlequinCompletion
from harlequin.catalog import Catalog, CatalogItem, InteractiveCatalogItem
from harlequin.exception import HarlequinConnectionError
from harlequin_duckdb.adapter import DuckDbAdapter, DuckDbConnection

from duckdb_mistral.duck.qualifying import qualified
from duckdb_mistral.errors import MistralBatchError
from duckdb_mistral.functions.register import register
from duckdb_mistral.runtime import interrupts

if TYPE_CHECKING:
    from collections.abc import Sequence

    import duckdb
    from harlequin.driver import HarlequinDriver

#: Before DuckDB's own functions (1000), after reserved words (100).
COMPLETION_PRIORITY = 500
CATALOG_LABEL = "mistral functions"

_FUNCTIONS = qualified("""
SELECT function_name, parameters, comment
FROM duckdb_functions()
WHERE database_name = 'temp' AND function_type = 'table_macro' AND starts_with(function_name, 'mistral_')
  AND comment IS NOT NULL
ORDER BY function_name
""")


@dataclass(frozen=True)
class Function:
    """A function as the catalog shows it."""

    name: str
    parameters: tuple[str, ...]
    comment: str

    @property
    def call(self) -> str:
        """The function with its parameters, as shown in its help."""
        return f"{self.name}({', '.join(self.parameters)})"


def _insert_call(item: FunctionItem, driver: HarlequinDriver) -> None:
    driver.insert_text_at_selection(f"FROM {item.query_name}()")


def _show_help(item: FunctionItem, driver: HarlequinDriver) -> None:
    driver.notify(f"{item.type_name}\n\n{item.help}")


@dataclass
class FunctionItem(InteractiveCatalogItem["MistralConnection"]):
    """A function in the catalog; its children are its parameters."""

    INTERACTIONS = (("Insert Call at Cursor", _insert_call), ("Show Help", _show_help))
    help: str = ""

    @classmethod
    def of(cls, function: Function, connection: MistralConnection) -> FunctionItem:
        """Return the catalog item for `function`."""
        identifier = f'"temp"."main"."{function.name}"'
        parameters = [
            CatalogItem(
                qualified_identifier=f'{identifier}."{name}"', query_name=f"{name} := ", label=name, type_label="arg"
            )
            for name in function.parameters
        ]
        return cls(
            qualified_identifier=identifier,
            query_name=function.name,
            label=function.name,
            type_label="fn->T",
            type_name=function.call,
            children=list(parameters),
            loaded=True,
            connection=connection,
            help=function.comment,
        )


class MistralConnection(DuckDbConnection):
    """Harlequin's DuckDB connection, with the functions shown."""

    def __init__(self, conn: duckdb.DuckDBPyConnection, init_message: str = "") -> None:
        """Register the functions and list them; raises MistralBatchError for an unusable setting."""
        super().__init__(conn, init_message)
        register(conn)
        # Harlequin reads its catalog on cursors, which do not see TEMP macros, so make the list here.
        found = conn.execute(_FUNCTIONS).fetchall()
        self.functions = [Function(name, tuple(parameters), comment) for name, parameters, comment in found]

    def get_catalog(self) -> Catalog:
        """Return the databases, and the functions after them."""
        items: list[CatalogItem] = [FunctionItem.of(function, self) for function in self.functions]
        label = CatalogItem(
            qualified_identifier='"temp"', query_name="", label=CATALOG_LABEL, type_label="fn", children=items
        )
        return Catalog(items=[*super().get_catalog().items, label])

    def get_completions(self) -> list[HarlequinCompletion]:
        """Return DuckDB's completions, the functions, and the names of their parameters."""
        return [
            *super().get_completions(),
            *(
                HarlequinCompletion(
                    label=function.name, type_label="fn->T", value=function.name, priority=COMPLETION_PRIORITY
                )
                for function in self.functions
            ),
            *(
                HarlequinCompletion(label=name, type_label="arg", value=f"{name} := ", priority=COMPLETION_PRIORITY)
                for name in sorted({name for function in self.functions for name in function.parameters})
            ),
        ]

    def cancel(self) -> None:
        """Interrupt the query, even one that waits for a batch."""
        interrupts.interrupt()
        super().cancel()


class MistralAdapter(DuckDbAdapter):
    """Harlequin's DuckDB adapter, with the mistral functions."""

    ADAPTER_DETAILS = "DuckDB with the functions of duckdb-mistral: FROM mistral_batch_submit(…) and the others."

    def __init__(self, conn_str: Sequence[str], **options: Any) -> None:
        """Take what the DuckDB adapter takes; the settings of the functions come from the environment."""
        super().__init__(conn_str, **options)

    def connect(self) -> MistralConnection:
        """Open the database; raises HarlequinConnectionError where that or a setting fails."""
        plain = super().connect()
        try:
            return MistralConnection(plain.conn, plain.init_message)
        except MistralBatchError as error:
            plain.conn.close()
            raise HarlequinConnectionError(str(error), title="The mistral functions cannot be used.") from error
