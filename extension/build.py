"""Compile the DuckDB extension into the package; the build hook of pyproject.toml, and a command for people.

Nobody needs a compiler: where there is none, the build asks for PyPI's ziglang, which is one. If that is not
available either, the package goes without the extension, and `duckdb-mistral shell` says so.

    python extension/build.py [PLATFORM ...]       compiles into the checkout; without a platform, for this machine
    python extension/build.py --check dist/*.whl   checks that a wheel has all platforms, each with its own footer
"""

from __future__ import annotations

import functools
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from pathlib import Path
from typing import Any

try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # run by a person
    BuildHookInterface = object  # type: ignore[assignment, misc]

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "extension" / "mistral.c"
#: Where the package looks, below its root.
FOLDER = "duckdb_mistral/shell/native"
NAME = "mistral.duckdb_extension"
#: With this, a build is for all platforms, whatever is there to compile with.
ALL_VARIABLE = "DUCKDB_MISTRAL_ALL_PLATFORMS"

#: DuckDB's names of the platforms, as targets of zig. Windows has no socket pairs.
TARGETS = {
    "linux_amd64": "x86_64-linux-gnu.2.17",
    "linux_arm64": "aarch64-linux-gnu.2.17",
    "linux_amd64_musl": "x86_64-linux-musl",
    "linux_arm64_musl": "aarch64-linux-musl",
    "osx_amd64": "x86_64-macos.11.0",
    "osx_arm64": "aarch64-macos.11.0",
}
PROCESSORS = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}
#: The version of DuckDB's C API that the extension uses, and all later versions of DuckDB have.
API = "v1.2.0"
#: How a file of each platform begins: ELF or Mach-O, and the processor in it.
BEGINNINGS = {
    "linux_amd64": (b"\x7fELF", 18, b"\x3e\x00"),
    "linux_arm64": (b"\x7fELF", 18, b"\xb7\x00"),
    "osx_amd64": (b"\xcf\xfa\xed\xfe", 4, b"\x07\x00\x00\x01"),
    "osx_arm64": (b"\xcf\xfa\xed\xfe", 4, b"\x0c\x00\x00\x01"),
}
FLAGS = ("-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-fvisibility=hidden")
ZIGLANG = "ziglang>=0.13"


def footer(target: str, version: str) -> bytes:
    """Return what DuckDB knows an extension by: eight fields of 32 bytes, the last first, and room for a signature.

    It has the form of a custom section of WebAssembly, on every platform.
    """
    fields = ["4", target, API, version, "C_STRUCT", "", "", ""]
    padded = b"".join(field.encode().ljust(32, b"\0") for field in reversed(fields))
    return b"\0" + bytes([147, 4, 16]) + b"duckdb_signature" + bytes([128, 4]) + padded + bytes(256)


def compile_extension(target: str, version: str, out: Path) -> None:
    """Compile the extension for a platform; raises OSError or CalledProcessError where that fails."""
    out.parent.mkdir(parents=True, exist_ok=True)
    unfinished = out.with_name(f"{out.name}-{os.getpid()}")
    command = [*_compiler(target), *FLAGS, *(() if target.startswith("osx") else ("-s",))]
    try:
        subprocess.run(
            [*command, str(SOURCE), "-o", str(unfinished)], check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        with unfinished.open("ab") as file:
            file.write(footer(target, version))
        unfinished.replace(out)  # a process that has loaded the one before keeps it
    finally:
        unfinished.unlink(missing_ok=True)


def _compiler(target: str) -> list[str]:
    if target == here() and not os.environ.get(ALL_VARIABLE) and cc() is not None:
        return [str(cc())]
    return [sys.executable, "-m", "ziglang", "cc", "-target", TARGETS[target]]


def here() -> str | None:
    """Return DuckDB's name of this machine's platform, None if there is no extension for it."""
    system = {"linux": "linux", "darwin": "osx"}.get(sys.platform)
    processor = PROCESSORS.get(platform.machine().lower())
    musl = "_musl" if system == "linux" and not platform.libc_ver()[0] else ""
    name = f"{system}_{processor}{musl}"
    return name if name in TARGETS else None


@functools.cache
def cc() -> str | None:
    """Return this machine's C compiler if it compiles what the extension needs; the headers may be missing."""
    found = shutil.which("cc")
    if found is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        tried = subprocess.run(
            [found, *FLAGS, "-x", "c", "-", "-o", f"{folder}/tried"],
            input=b"#include <sys/socket.h>\n#include <spawn.h>\n#include <stdio.h>\n",
            capture_output=True,
            check=False,
        )
    return found if tried.returncode == 0 else None


def wanted() -> list[str]:
    """Return the platforms to build for."""
    if os.environ.get(ALL_VARIABLE):
        return list(TARGETS)
    return [name] if (name := here()) else []


class ExtensionHook(BuildHookInterface):  # type: ignore[type-arg]
    """Puts the extension into the wheel, or into the checkout where the installation is an editable one."""

    def dependencies(self) -> list[str]:
        """Return what the build needs: a compiler from PyPI if this machine has none."""
        needed = os.environ.get(ALL_VARIABLE) or (here() is not None and cc() is None)
        return [ZIGLANG] if needed and importlib.util.find_spec("ziglang") is None else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile before the files are gathered."""
        self._folder = tempfile.TemporaryDirectory()
        for target in wanted():
            inside = f"{FOLDER}/{target}/{NAME}"
            out = ROOT / inside if version == "editable" else Path(self._folder.name) / target / NAME
            try:
                compile_extension(target, self.metadata.version, out)
            except (OSError, subprocess.CalledProcessError) as error:
                if os.environ.get(ALL_VARIABLE):  # a release is whole, or is not made
                    raise
                self.app.display_warning(f"Without the DuckDB extension: {_told(error)}")
                continue
            if version != "editable":
                # `duckdb-mistral extension` fills this in; it is here so that it goes with the installation.
                helper = out.with_name("helper")
                helper.touch()
                build_data["force_include"][str(out)] = inside
                build_data["force_include"][str(helper)] = f"{FOLDER}/{target}/helper"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # noqa: ARG002
        """Remove what was compiled."""
        self._folder.cleanup()


def check_wheel(path: Path) -> None:
    """Raise ValueError unless a wheel has the extension for every platform, compiled for it and with its footer."""
    version = path.name.split("-")[1]
    with zipfile.ZipFile(path) as wheel:
        for target in TARGETS:
            try:
                data = wheel.read(f"{FOLDER}/{target}/{NAME}")
            except KeyError as error:
                raise ValueError(f"{path.name} has no extension for {target}.") from error
            magic, place, processor = BEGINNINGS[target.removesuffix("_musl")]
            if not data.startswith(magic) or data[place : place + len(processor)] != processor:
                raise ValueError(f"{path.name}: the extension for {target} is compiled for another platform.")
            if not data.endswith(footer(target, version)):
                raise ValueError(f"{path.name}: the extension for {target} has another footer than {version} has.")


def _version() -> str:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return str(project["version"])


def _told(error: OSError | subprocess.CalledProcessError) -> str:
    said = error.stdout.decode(errors="replace") if isinstance(error, subprocess.CalledProcessError) else str(error)
    return " ".join(said.split())[:500]


def main(arguments: list[str]) -> None:
    """Do what the arguments ask for."""
    if arguments[:1] == ["--check"]:
        for name in arguments[1:]:
            check_wheel(Path(name))
            print(f"{name} has the extension for {', '.join(TARGETS)}")
        return
    for target in arguments or wanted():
        out = ROOT / FOLDER / target / NAME
        compile_extension(target, _version(), out)
        print(out)


if __name__ == "__main__":
    main(sys.argv[1:])
