"""The official duckdb shell: the one on the PATH, or the one in the package duckdb-cli."""

from __future__ import annotations

import re
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from duckdb_mistral.errors import MistralBatchError

if TYPE_CHECKING:
    from collections.abc import Iterator

#: 1.5 brought TEMP table macros over query(); 1.5.0 loses rows of a join with LIMIT.
OLDEST = (1, 5, 1)
#: Where duckdb-cli's binary lies in a Python environment.
PACKAGED = "lib/python*/site-packages/duckdb_cli/duckdb"


class Binary(NamedTuple):
    """A duckdb shell, and DuckDB's name for the platform that it is built for."""

    path: str
    version: str
    platform: str


def find_binary() -> Binary:
    """Return the shell to run; raises MistralBatchError if there is none, or only ones that are too old."""
    found = []
    for path in _candidates():
        binary = _examined(path)
        if binary is not None:
            if _numbers(binary.version) >= OLDEST:
                return binary
            found.append(f"{path} is {binary.version}")
    oldest = ".".join(map(str, OLDEST))
    seen = f" ({'; '.join(found)})" if found else ""
    raise MistralBatchError(
        f"There is no duckdb shell of version {oldest} or later here{seen}. Run pip install 'duckdb-mistral[shell]' "
        "for the newest one on PyPI, or put any other on the PATH."
    )


def _candidates() -> Iterator[str]:
    on_path = shutil.which("duckdb")
    if on_path is not None and _is_python(on_path):
        yield from map(str, Path(on_path).resolve().parent.parent.glob(PACKAGED))
    elif on_path is not None:
        yield on_path
    spec = find_spec("duckdb_cli")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        packaged = shutil.which("duckdb", path=folder)
        if packaged is not None:
            yield packaged


def _is_python(path: str) -> bool:
    """Tell whether a program is duckdb-cli's script, which does not pass inherited sockets on to the binary."""
    with Path(path).open("rb") as file:
        first = file.readline(1000)
    return first.startswith(b"#!") and b"python" in first


def _examined(path: str) -> Binary | None:
    """Ask a shell for its version and platform; None if it does not run."""
    asked = "SELECT version(), platform FROM pragma_platform()"
    try:
        said = subprocess.run(  # noqa: S603
            [path, "-no-init", "-list", "-noheader", "-c", asked],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    version, _, platform = said.stdout.strip().partition("|")
    return Binary(path, version.removeprefix("v"), platform) if platform else None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", version)[:3]))
