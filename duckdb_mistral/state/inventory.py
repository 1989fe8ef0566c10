"""The files under `home`, without what the ledger says of them: kinds, names that belong together, counts, removal."""

from __future__ import annotations

import shutil
from contextlib import closing, suppress
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby
from typing import TYPE_CHECKING

from duckdb_mistral.runtime.failpoints import failpoint
from duckdb_mistral.state.names import is_unfinished, stem_of

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator
    from pathlib import Path


class Kind(StrEnum):
    """What a file under `home` is, in the words that a person reads."""

    NEEDED = "requests that are still needed"
    ANSWERED = "requests whose answers are all kept"
    LEFTOVER = "leftovers of processes that were killed"
    BUSY = "what other processes are writing now"
    RESULTS = "kept results"
    REPLACED = "partial results of jobs whose whole results are kept"
    COPY = "copies of what the store has"
    ASKED = "kept results that --results or --older-than asks to free"
    STRANGE = "results that the ledger does not know"
    HASHES = "hashes of requests, for reuse"
    LEDGER = "the ledger"
    ASIDE = "damaged ledgers put aside"
    LOCKS = "locks between processes"
    OTHER = "other files"


FREED = frozenset({Kind.ANSWERED, Kind.LEFTOVER, Kind.REPLACED, Kind.ASKED, Kind.COPY})


@dataclass(frozen=True, kw_only=True)
class Heap:
    """All that is of one kind: how many files, and their bytes."""

    kind: Kind
    files: int
    size: int

    @property
    def freed(self) -> bool:
        """Whether clean frees it."""
        return self.kind in FREED


@dataclass(frozen=True, kw_only=True)
class Thing:
    """Files and directories that stay or go together, in the order in which they go."""

    kind: Kind
    paths: tuple[Path, ...]
    #: How it is freed, where removing the paths is not enough; False where it has to stay after all.
    free: Callable[[], bool] | None = None

    def heap(self, kind: Kind) -> Heap:
        """Return how much this is, counted as `kind`."""
        sizes = [size for path in self.paths for size in _sizes(path)]
        return Heap(kind=kind, files=len(sizes), size=sum(sizes))


def heaped(things: Generator[Thing, None, None], *, free: bool) -> list[Heap]:
    """Return how much there is of each kind that there is; with `free`, free what can be while it is handed over."""
    counted: dict[Kind, list[Heap]] = {kind: [] for kind in Kind}
    with closing(things):
        for thing in things:
            heap = thing.heap(thing.kind)
            if free and heap.freed and not _freed(thing):
                heap = thing.heap(Kind.NEEDED)
            counted[heap.kind].append(heap)
    return [
        Heap(kind=kind, files=sum(heap.files for heap in heaps), size=sum(heap.size for heap in heaps))
        for kind, heaps in counted.items()
        if any(heap.files for heap in heaps)
    ]


def _freed(thing: Thing) -> bool:
    """Remove what a thing is; return whether it could be."""
    if thing.free is not None:
        return thing.free()
    for path in thing.paths:
        failpoint("before-free")
        with suppress(FileNotFoundError):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
    return True


def entries(directory: Path) -> list[Path]:
    """Return what lies in a directory, in order; nothing where there is no directory."""
    return sorted(directory.iterdir()) if directory.is_dir() else []


def finished(paths: Iterable[Path]) -> list[Path]:
    """Return the files among paths that were written to their end."""
    return [path for path in paths if path.is_file() and not is_unfinished(path)]


def by_stem(paths: Iterable[Path]) -> Iterator[tuple[str, tuple[Path, ...]]]:
    """Yield the files that belong together, the one first without which the others are not read."""
    for stem, group in groupby(sorted(paths, key=stem_of), key=stem_of):
        yield stem, tuple(sorted(group, key=lambda path: (path.suffix != ".parquet", path.name)))


def _sizes(path: Path) -> Iterator[int]:
    """Yield the bytes of a file, or of every file in a directory; what goes away meanwhile is passed over."""
    with suppress(FileNotFoundError):
        if path.is_dir() and not path.is_symlink():
            for entry in path.iterdir():
                yield from _sizes(entry)
        else:
            yield path.lstat().st_size
