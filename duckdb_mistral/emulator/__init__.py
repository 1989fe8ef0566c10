"""A local batch server: the files, batch and models endpoints, with its state on disk.

It answers with an echo, or with a model server's answers. It shares no code with the client. Use it in tests and for
trying things out:

    with Emulator() as emulator:
        ...  # emulator.url is its address

or as a separate process: `duckdb-mistral emulator`, `python -m duckdb_mistral.emulator`.
"""

from __future__ import annotations

try:
    import python_multipart  # noqa: F401
    import starlette  # noqa: F401
    import uvicorn  # noqa: F401
except ImportError as error:
    raise ImportError(
        "The local batch server needs the extra 'emulator': pip install 'duckdb-mistral[emulator]'"
    ) from error

from duckdb_mistral.emulator.faults import Rule
from duckdb_mistral.emulator.running import Emulator
from duckdb_mistral.emulator.upstream import Upstream

__all__ = ["Emulator", "Rule", "Upstream"]
