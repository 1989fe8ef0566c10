"""The commands around other programs: the demo and the local server."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

from click.testing import CliRunner
from support import clean_environment

if TYPE_CHECKING:
    from pathlib import Path

    from cli.terminal import Terminal

    from duckdb_mistral.emulator import Emulator
from duckdb_mistral.cli import commands


def test_demo(terminal: Terminal) -> None:
    """The demo shows its statements and ends with real text joined to answers, without a key."""
    done = terminal.run("demo", "--seconds", "1", MISTRAL_API_KEY="")
    assert done.returncode == 0, done.stderr
    assert "FROM mistral_batch_submit('staging'" in done.stderr
    assert "233 of 233 requests are done" in done.stderr
    assert "George Washington" in done.stdout
    assert "echo: Fellow-Citizens" in done.stdout
    assert terminal.emulator.witness()["requests"] == {}


def test_directory_of_the_emulator_that_cannot_be(tmp_path: Path) -> None:
    """A state directory that cannot be made is named, and not the port."""
    (tmp_path / "file").touch()
    directory = tmp_path / "file" / "state"
    done = CliRunner().invoke(commands.cli, ["emulator", "--port", "0", "--dir", str(directory)])
    assert (done.exit_code, done.stdout) == (1, "")
    assert f"cannot keep its state in {directory}: Not a directory" in done.stderr
    assert "port" not in done.stderr


def test_port_of_the_emulator_that_is_taken(emulator: Emulator) -> None:
    """A port that another server has is named."""
    port = emulator.url.rpartition(":")[2]
    done = CliRunner().invoke(commands.cli, ["emulator", "--port", port])
    assert done.exit_code == 1
    assert f"cannot listen on port {port} (Address already in use). Choose another with --port." in done.stderr


def test_emulator_command(tmp_path: Path) -> None:
    """The emulator prints its address on standard output and serves until it is told to stop."""
    import signal
    import urllib.request

    child = subprocess.Popen(
        [sys.executable, "-m", "duckdb_mistral", "emulator", "--port", "0", "--dir", str(tmp_path / "state")],
        env=clean_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    address = child.stdout.readline().strip()
    with urllib.request.urlopen(f"{address}/_emulator/witness") as answer:  # noqa: S310  our own server
        assert json.load(answer)["jobs_stored"] == 0
    child.send_signal(signal.SIGINT)
    _, said = child.communicate(timeout=30)
    assert f"export MISTRAL_SERVER_URL={address} " in said
    assert "Traceback" not in said
