"""The extension of the checkout, compiled anew where its source has changed, and what clients run to have it."""

from __future__ import annotations

import fcntl
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support import clean_environment, load_script

from duckdb_mistral.errors import MistralBatchError
from duckdb_mistral.shell.binary import find_binary
from duckdb_mistral.shell.extension import extension_file, platform

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(scope="session")
def build() -> Any:
    """Return the build of the extension."""
    return load_script(ROOT / "extension" / "build.py")


@pytest.fixture(scope="session")
def extension(build: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the extension for this machine; skip where it cannot be compiled."""
    file: Path = ROOT / build.FOLDER / platform() / build.NAME
    with (tmp_path_factory.getbasetemp().parent / "extension.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # of several workers, one compiles
        if not file.exists() or file.stat().st_mtime < build.SOURCE.stat().st_mtime:
            try:
                build.compile_extension(platform(), "0", file)
            except (OSError, subprocess.CalledProcessError):
                pytest.skip("neither cc nor ziglang is here to compile the extension")
    assert extension_file(platform()) == file
    return file


@pytest.fixture(scope="session")
def statements(extension: Path) -> str:
    """Return what `duckdb-mistral extension --sql` prints."""
    ran = subprocess.run(
        [sys.executable, "-m", "duckdb_mistral", "extension", "--sql"],
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert str(extension) in ran.stdout
    return ran.stdout


@pytest.fixture(scope="session")
def shell(extension: Path) -> str:
    """Return the version of the official shell that `duckdb-mistral shell` opens; skip where there is none."""
    try:
        return find_binary().version
    except MistralBatchError as error:
        pytest.skip(str(error))
