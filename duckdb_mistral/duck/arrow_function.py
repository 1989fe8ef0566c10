"""Functions of DuckDB that take and return whole vectors of Arrow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from duckdb.func import FunctionNullHandling, PythonUDFType

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import duckdb
    import pyarrow as pa


def create_arrow_function(
    connection: duckdb.DuckDBPyConnection,
    name: str,
    function: Callable[..., pa.Array],
    parameters: Sequence[str],
    returned: str,
    *,
    pure: bool,
) -> None:
    """Create the function `name` on the database of `connection`, with the types of its parameters and its result.

    It sees NULLs as they are. DuckDB may call a `pure` one as often as it likes, and leave it out.
    """
    connection.create_function(
        name,
        function,
        list[Any](parameters),
        returned,
        type=PythonUDFType.ARROW,
        null_handling=FunctionNullHandling.SPECIAL,
        side_effects=not pure,
    )
