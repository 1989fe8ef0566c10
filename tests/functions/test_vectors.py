"""Python's values as Arrow's: the same arrays as Arrow itself would make of them."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import run_python

from duckdb_mistral.functions import row_types
from duckdb_mistral.functions.udfs import table
from duckdb_mistral.functions.vectors import array

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

KINDS = (row_types.SUBMIT, row_types.STATUS, row_types.ESTIMATE, row_types.COST, row_types.MODELS)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)


def values_of(kind: pa.DataType) -> SearchStrategy[Any]:
    """Return values of a type, None among them."""
    if pa.types.is_struct(kind):
        found: SearchStrategy[Any] = st.fixed_dictionaries({field.name: values_of(field.type) for field in kind})
    elif pa.types.is_map(kind):
        found = st.lists(st.tuples(TEXTS, values_of(kind.item_type)), max_size=3)
    elif pa.types.is_list(kind):
        found = st.lists(values_of(kind.value_type), max_size=3)
    elif pa.types.is_string(kind):
        found = TEXTS
    elif pa.types.is_boolean(kind):
        found = st.booleans()
    elif pa.types.is_date(kind):
        found = st.dates(date(1, 1, 1), date(9999, 12, 31))
    elif pa.types.is_floating(kind):
        found = st.floats(allow_nan=False)
    else:
        most = (1 << kind.bit_width - 1) - 1
        found = st.integers(-most - 1, most)
    return st.none() | found


@pytest.mark.parametrize("kind", KINDS, ids=["submit", "status", "estimate", "cost", "models"])
@settings(deadline=None)
@given(data=st.data())
def test_same_as_arrow(kind: pa.DataType, data: st.DataObject) -> None:
    """Whatever the rows hold, the array is the one that Arrow makes."""
    values = data.draw(st.lists(values_of(kind), max_size=4))
    found = array(values, kind)
    found.validate(full=True)
    assert found.equals(pa.array(values, kind))


@pytest.mark.parametrize("function", table(), ids=lambda function: function.name)
def test_every_answer(function: Any) -> None:
    """An answer of each function can be made, where there is none too."""
    for values in ([], [None]):
        assert array(values, function.kind).equals(pa.array(values, function.kind))


@pytest.mark.newest
def test_pandas_is_not_imported() -> None:
    """A statement imports no pandas, where it is installed; DuckDB 1.5 imports it by itself."""
    child = run_python(
        "import sys, duckdb_mistral; con = duckdb_mistral.connect()\n"
        "con.execute(\"FROM mistral_batch_preview('SELECT 1 AS custom_id, 2 AS prompt')\").fetchall()\n"
        "try: con.execute('FROM mistral_batch_status(NULL)')\n"
        "except Exception: pass\n"
        "print('pandas' in sys.modules)",
        {},
    )
    assert child.stdout == "False\n", child.stderr
