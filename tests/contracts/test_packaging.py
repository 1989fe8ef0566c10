"""The wheel: what is in it, and that it works where nothing of the checkout is."""

from __future__ import annotations

import struct
import subprocess
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path

import duckdb
import pytest
from support import clean_environment

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a wheel, built by hatchling from the checkout."""
    directory = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(directory)],
        cwd=ROOT,
        check=True,
        capture_output=True,
        timeout=120,
    )
    (path,) = directory.glob("*.whl")
    return path


def test_wheel_holds_what_the_package_reads(wheel: Path) -> None:
    """The SQL, the dbt package, the data and the type marker are in the wheel, file by file."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    expected = (
        {f"duckdb_mistral/{path.relative_to(ROOT)}" for path in (ROOT / "sql").rglob("*.sql")}
        | {f"duckdb_mistral/{path.relative_to(ROOT)}" for path in (ROOT / "dbt_package" / "macros").iterdir()}
        | {"duckdb_mistral/dbt_package/dbt_project.yml"}
        | {f"duckdb_mistral/data/{path.name}" for path in (ROOT / "examples" / "data").iterdir() if path.is_file()}
        | {
            str(path.relative_to(ROOT))
            for path in (ROOT / "duckdb_mistral").rglob("*")
            if path.is_file() and not {"__pycache__", "native"} & {*path.parts}
        }
    )
    assert {
        "duckdb_mistral/py.typed",
        "duckdb_mistral/api/endpoints.json",
        "duckdb_mistral/emulator/chat.sql",
    } <= expected
    assert expected <= names
    assert not [name for name in names if not name.startswith(("duckdb_mistral/", "duckdb_mistral-"))]


def test_wheel_holds_the_extension(wheel: Path) -> None:
    """The wheel has the DuckDB extension of the machine that built it, which DuckDB knows by its last bytes."""
    with zipfile.ZipFile(wheel) as archive:
        files = {
            Path(name).parent.name: archive.read(name)
            for name in archive.namelist()
            if "/native/" in name and name.endswith("_extension")
        }
    if not files:
        pytest.skip("neither cc nor ziglang is here to compile the extension")
    ((platform, built),) = files.items()
    with duckdb.connect() as con:
        assert (platform,) == con.execute("FROM pragma_platform()").fetchone()
    told = [field.rstrip(b"\0").decode() for field in struct.unpack("32s" * 8, built[-512:-256])]
    assert told[::-1] == ["4", platform, "v1.2.0", version("duckdb-mistral"), "C_STRUCT", "", "", ""]


def test_wheel_names_its_commands_and_licence(wheel: Path) -> None:
    """The metadata name the command, the extras and the licence."""
    with zipfile.ZipFile(wheel) as archive:
        information = {name.split("/", 1)[1]: name for name in archive.namelist() if ".dist-info/" in name}
        metadata = archive.read(information["METADATA"]).decode()
        entries = archive.read(information["entry_points.txt"]).decode()
    assert "License-Expression: Apache-2.0" in metadata
    assert "Provides-Extra: emulator" in metadata
    assert "duckdb-mistral = duckdb_mistral.cli.commands:main" in entries
    assert "licenses/LICENSE" in information


def test_wheel_works_alone(wheel: Path, tmp_path: Path) -> None:
    """Unpacked elsewhere and imported in isolation, the wheel registers and previews, and names its dbt package."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "unpacked")
    code = f"""
import sys
sys.path.insert(0, {str(tmp_path / "unpacked")!r})
import duckdb_mistral
print(duckdb_mistral.__file__)
con = duckdb_mistral.connect()
print(con.execute("FROM mistral_batch_preview('SELECT 1 AS custom_id, 2 AS prompt')").fetchall())
from duckdb_mistral.duck.sql_files import dbt_package
print(dbt_package())
"""
    child = subprocess.run(
        [sys.executable, "-I", "-c", code],
        cwd=tmp_path,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert child.stderr == ""
    assert child.stdout.splitlines() == [
        str(tmp_path / "unpacked" / "duckdb_mistral" / "__init__.py"),
        """[('1', '{"messages":[{"role":"user","content":"2"}]}')]""",
        str(tmp_path / "unpacked" / "duckdb_mistral" / "dbt_package"),
    ]
