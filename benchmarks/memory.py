"""The memory of this process, as Linux counts it."""

from __future__ import annotations

from pathlib import Path


class PeakMemory:
    """What the process came to hold at most, and how much of it was added after this was made."""

    def __init__(self) -> None:
        """Begin to count here."""
        self.forget()
        self._before = status_of("self", "VmRSS")

    def forget(self) -> None:
        """Set the peak back to what is held now."""
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")

    @property
    def peak_bytes(self) -> int:
        """The most that the process has held since then, all in all."""
        return status_of("self", "VmHWM")

    @property
    def added_bytes(self) -> int:
        """How much more than at the start that is."""
        return max(0, self.peak_bytes - self._before)


def status_of(process: int | str, name: str) -> int:
    """Return what Linux counts of a process under a name, in bytes; OSError where it has ended."""
    for line in Path(f"/proc/{process}/status").read_text(encoding="ascii").splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return int(value.split()[0]) * 1024
    raise ProcessLookupError(f"/proc/{process}/status has no {name}; the benchmarks need Linux.")
