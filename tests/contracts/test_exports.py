"""What the package shows: `__all__`, and that nothing else is public."""

from __future__ import annotations

import re
import types

import pytest

import duckdb_mistral
from duckdb_mistral import errors


def test_all_is_what_is_public() -> None:
    """`__all__` is sorted, and equals the names without an underscore that are no modules."""
    public = [
        name
        for name, value in vars(duckdb_mistral).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType) and name != "annotations"
    ]
    assert duckdb_mistral.__all__ == sorted(public)


def test_every_error_is_exported() -> None:
    """Every error of the tree can be imported from the package itself, to be caught."""
    defined = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)}
    assert defined <= set(duckdb_mistral.__all__)


def test_all_has_docstrings() -> None:
    """Everything public says what it is."""
    for name in duckdb_mistral.__all__:
        assert getattr(duckdb_mistral, name).__doc__, name


def test_version() -> None:
    """The version is the installed package's, and no other name is made up."""
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", duckdb_mistral.__version__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = duckdb_mistral.nothing
