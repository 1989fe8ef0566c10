"""What is to be done when a block of work ends, however it does."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from duckdb_mistral.errors import MistralBatchError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextmanager
def ending(work: Callable[[], object]) -> Iterator[None]:
    """Do `work` when the block ends. If it fails, that is raised, unless the block was interrupted or is at fault."""
    try:
        yield
    except MistralBatchError:
        work()
        raise
    except BaseException:
        with suppress(MistralBatchError):
            work()
        raise
    work()
