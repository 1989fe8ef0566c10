"""Batches on a server of models that another project wrote: OpenAI's API as it is understood elsewhere."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from object_server import free_port
from support import answered, connect, rows, submitted

from duckdb_mistral.emulator import Emulator, Upstream

if TYPE_CHECKING:
    from collections.abc import Iterator

COMMAND = shutil.which("mock-ai-api", path=str(Path(sys.executable).parent))

pytestmark = pytest.mark.skipif(COMMAND is None, reason="mock-ai-api is not in this environment: make test-upstream")


@pytest.fixture
def models_url() -> Iterator[str]:
    """Yield the address of the other project's server, once it serves."""
    assert COMMAND is not None
    port = free_port()
    ports = ["--openai-port", str(port), "--anthropic-port", str(free_port())]
    with subprocess.Popen([COMMAND, *ports], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        url = f"http://127.0.0.1:{port}"
        try:
            for _ in range(200):
                try:
                    with urllib.request.urlopen(f"{url}/health"):  # noqa: S310  our own child
                        break
                except OSError:
                    time.sleep(0.05)
            yield url
        finally:
            server.terminate()


def test_batches_on_a_server_of_models(models_url: str, tmp_path: Path) -> None:
    """The same SQL gets that server's answers, and its refusals as errors of their rows."""
    upstream = Upstream(urls=(models_url,), attempts=2, first_wait_seconds=0.01)
    with (
        Emulator(tmp_path / "server", upstream=upstream) as emulator,
        connect(emulator, tmp_path / "home") as con,
    ):
        con.execute("CREATE TABLE asked AS SELECT range AS custom_id, 'prompt ' || range AS prompt FROM range(50)")
        found = answered(con, submitted(con, "asked", "model := 'gpt-4.1:mock-text'"))
        assert len(found) == 50
        assert {row["outcome"] for row in found} == {"ok"}
        assert all(row["content"] and row["total_tokens"] for row in found)

        called = answered(con, submitted(con, "asked", "model := 'gpt-4.1:mock-tool-call'"))
        assert {(row["outcome"], row["finish_reason"]) for row in called} == {("ok", "tool_calls")}

        refused = answered(con, submitted(con, "asked", "model := 'gpt-4.1:mock-429'"))
        assert {(row["outcome"], row["status_code"]) for row in refused} == {("error", 429)}
        assert all(row["error"] for row in refused)
        left = rows(con, "SELECT count(*) AS n FROM mistral_batch_results() WHERE outcome <> 'ok'")
        assert left == [{"n": 50}]
