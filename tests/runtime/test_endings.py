"""Work at the end of a block: it is always done, and the more useful of two errors is told."""

from __future__ import annotations

import pytest

from duckdb_mistral.errors import ApiError, LedgerError
from duckdb_mistral.runtime.endings import ending


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("ended_by", [None, ApiError("refused"), KeyboardInterrupt(), ValueError("a mistake")])
def test_endings(ended_by: BaseException | None, *, fails: bool) -> None:
    """What is left to do is done however a block ends; its own error is told unless the block was interrupted."""
    done = []

    def work() -> None:
        done.append(True)
        if fails:
            raise LedgerError("away")

    told = None
    try:
        with ending(work):
            if ended_by is not None:
                raise ended_by
    except BaseException as error:  # noqa: BLE001  it is looked at below
        told = error
    assert done == [True]
    if fails and (ended_by is None or isinstance(ended_by, ApiError)):
        assert isinstance(told, LedgerError)
    else:
        assert told is ended_by
