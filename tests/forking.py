"""Processes that begin with most imports done: real, and as killable as any, without the second that imports take each.

Run as a program this is the server, one for each worker of pytest: it reads requests, forks a child for each, and tells
how it ended. What is imported, and when, is tested in processes that are new.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import pkgutil
import shutil
import signal
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

#: Seconds after which a child is killed.
LONGEST = 120
#: What the package, DuckDB and pyarrow import sooner or later.
IMPORTED = (
    "mistralai.client.sdk",
    "numpy",
    "pandas",
    "psycopg",
    "pyarrow.compute",
    "pyarrow.dataset",
    "pyarrow.parquet",
    "pydantic",
    "rich.table",
    "sqlalchemy.dialects.postgresql.psycopg",
    "sqlalchemy.dialects.sqlite",
)


def fork(
    code: str, environment: dict[str, str], *arguments: str, directory: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run code in a forked process, whose whole environment is `environment`."""
    with tempfile.TemporaryDirectory() as folder:
        asked = _request(code, environment, folder, arguments, directory)
        status, _ = _ask(asked)
        out, err = (Path(name).read_text(encoding="utf-8") for name in asked["files"])
    return subprocess.CompletedProcess(["python", *arguments], status, out, err)


class Stopped:
    """A forked process that has stopped itself."""

    def __init__(self, pid: int, folder: str, files: list[str]) -> None:
        """Know where it writes to, which is removed with `folder` at its end."""
        self.pid = pid
        self._folder = folder
        self._files = files

    def go_on(self) -> str:
        """Let it go on to its end; return what it said on standard error."""
        return self._end(signal.SIGCONT)

    def kill(self) -> None:
        """End it where it stands."""
        self._end(signal.SIGKILL)

    def _end(self, number: int) -> str:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)
        _ask({"wait": self.pid})
        said = Path(self._files[1]).read_text(encoding="utf-8")
        shutil.rmtree(self._folder, ignore_errors=True)
        return said


def fork_to_stop(code: str, environment: dict[str, str]) -> Stopped | None:
    """Run code in a forked process until it stops itself; return None where it came to its end instead."""
    folder = tempfile.mkdtemp()
    asked = _request(code, environment, folder) | {"stops": True}
    _, stopped = _ask(asked)
    if stopped is None:
        shutil.rmtree(folder, ignore_errors=True)
        return None
    return Stopped(stopped, folder, asked["files"])


def _request(
    code: str,
    environment: dict[str, str],
    folder: str,
    arguments: tuple[str, ...] = (),
    directory: Path | None = None,
) -> dict[str, Any]:
    return {
        "code": code,
        "arguments": arguments,
        "environment": environment,
        "directory": str(directory or Path.cwd()),
        "files": [str(Path(folder, name)) for name in ("out", "err")],
    }


def _ask(request: dict[str, Any]) -> tuple[int, int | None]:
    """Let the server do something; return a child's exit status, or the id of one that stopped itself."""
    server = _server()
    assert server.stdin is not None
    assert server.stdout is not None
    server.stdin.write(json.dumps(request) + "\n")
    server.stdin.flush()
    status, stopped = json.loads(server.stdout.readline())
    return status, stopped


@functools.cache
def _server() -> subprocess.Popen[str]:
    """Start this worker's server."""
    server = subprocess.Popen(
        [sys.executable, __file__],
        # No threads for numpy, and no warning of those that pyarrow's allocator has, which lives through forks.
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    atexit.register(server.communicate)
    return server


def _import_all() -> None:
    """Import what a child may need."""
    names = [*IMPORTED]
    if not version("duckdb").startswith("1."):  # which starts a thread when it is imported: a fork would be without it
        package = importlib.import_module("duckdb_mistral")
        names += [module.name for module in pkgutil.walk_packages(package.__path__, "duckdb_mistral.")]
    for name in names:
        with contextlib.suppress(ImportError):  # an extra need not be here
            if not name.endswith("__main__"):
                importlib.import_module(name)


def _serve() -> dict[str, Any] | None:
    """Fork for each request; return it in the child, and None in the server once there are no more."""
    while line := sys.stdin.readline():
        request: dict[str, Any] = json.loads(line)
        child = request.get("wait") or os.fork()
        if child == 0:
            return request
        _, status = os.waitpid(child, os.WUNTRACED if request.get("stops") else 0)
        ended = (0, child) if os.WIFSTOPPED(status) else (os.waitstatus_to_exitcode(status), None)
        sys.stdout.write(f"{json.dumps(ended)}\n")
        sys.stdout.flush()
    return None


def _become(request: dict[str, Any]) -> None:
    """Make this process what was asked for, but for the code that it runs."""
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["directory"])
    sys.argv = ["-c", *request["arguments"]]
    targets = [os.open(os.devnull, os.O_RDONLY)]
    targets += [os.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND) for name in request["files"]]
    for number, target in enumerate(targets):
        os.dup2(target, number)
        os.close(target)
    signal.alarm(LONGEST)


if __name__ == "__main__":
    sys.path = [str(Path.cwd()), *(path for path in sys.path if path != str(Path(__file__).parent))]
    _import_all()
    gc.freeze()  # or each child would look through all modules when it ends
    if found := _serve():
        _become(found)
        # Without __file__ DuckDB takes it for a person at a prompt, and draws a progress bar on standard output.
        exec(compile(found["code"], "<string>", "exec"), {"__name__": "__main__", "__file__": "script.py"})  # noqa: S102
