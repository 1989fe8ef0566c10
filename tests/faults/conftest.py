"""What holds for every fault: with all logging on, nothing that is said anywhere holds the key."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest
from support import KEY

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _nothing_tells_the_key(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> Iterator[None]:
    """Turn on all logging, the SDK's own too, and look for the key in all that was logged and printed."""
    monkeypatch.setenv("MISTRAL_DEBUG", "1")
    caplog.set_level(logging.DEBUG)
    yield
    logged = "\n".join(record.getMessage() for record in caplog.get_records("call"))
    printed = capfd.readouterr()
    assert KEY not in logged + printed.out + printed.err
