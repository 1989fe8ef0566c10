"""The room that directories come to take on the disk, looked at again and again while something else works."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

PAUSE_SECONDS = 0.5


class PeakDisk:
    """A context manager; afterwards `peak_bytes` is the most that the files under `directory` held at one look."""

    def __init__(self, directory: Path) -> None:
        """Look at nothing yet."""
        self.peak_bytes = 0
        self._directory = directory
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        self._look()

    def _watch(self) -> None:
        while not self._ended.wait(PAUSE_SECONDS):
            self._look()

    def _look(self) -> None:
        self.peak_bytes = max(self.peak_bytes, bytes_under(self._directory))


def bytes_under(directory: Path) -> int:
    """Return the bytes of all files under a directory; one that goes meanwhile counts for nothing."""
    total = 0
    for folder, _, names in os.walk(directory):  # passes over a folder that goes meanwhile
        for name in names:
            with suppress(OSError):
                total += (Path(folder) / name).stat().st_size
    return total
