"""DuckDB's client-server protocol: its extensions, the functions for the clients of a server, and the shell's binary.

Everything comes from packages that are installed, or that DuckDB itself has installed; nothing is downloaded.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from duckdb_mistral.errors import MistralBatchError
from duckdb_mistral.templates import macros

if TYPE_CHECKING:
    from collections.abc import Iterator

    import duckdb

EXTENSIONS = ("httpfs", "quack")
#: The files of sql/macros are our own: a header, a body, a comment.
_MACRO = re.compile(
    r"CREATE OR REPLACE TEMP MACRO (?P<name>\w+)\((?P<parameters>[^)]*)\) AS TABLE\n(?P<body>.*?;)\n"
    r"COMMENT ON MACRO TABLE (?P=name) IS\s*(?P<comment>'(?:[^']|'')*');",
    re.DOTALL,
)
#: A value as SQL that another session reads as the same value.
_ARGUMENT = """
CREATE OR REPLACE TEMP MACRO mistral_internal_argument(value) AS CASE
  WHEN value IS NULL THEN 'NULL'
  WHEN contains(typeof(value), '(') OR contains(typeof(value), '[')
    THEN '''' || replace(to_json(value)::VARCHAR, '''', '''''') || '''::JSON'
  ELSE '''' || replace(value::VARCHAR, '''', '''''') || '''::' || typeof(value)
END;"""


def load_extensions(connection: duckdb.DuckDBPyConnection) -> None:
    """Load what speaks the protocol; raises MistralBatchError where it is not installed."""
    for statement in load_statements(connection):
        connection.execute(statement)


def load_statements(connection: duckdb.DuckDBPyConnection) -> list[str]:
    """Return the LOAD statements for this version of DuckDB, good for its shell too."""
    return [f"LOAD {_extension(connection, name)};" for name in EXTENSIONS]


def shell_binary() -> Path:
    """Return the `duckdb` shell of the version of the Python package; raises MistralBatchError where there is none."""
    import duckdb

    if _packaged("duckdb-cli", duckdb.__version__):
        spec = find_spec("duckdb_cli")
        for folder in (spec.submodule_search_locations or ()) if spec else ():
            for name in ("duckdb", "duckdb.exe"):
                if (Path(folder) / name).is_file():
                    return Path(folder) / name
    on_path = shutil.which("duckdb")
    if on_path and _version_of(on_path) == duckdb.__version__:
        return Path(on_path)
    raise MistralBatchError(_advice("the duckdb shell"))


def macros_of_server(catalog: str) -> Iterator[str]:
    """Return the statements that create the functions in an attached catalog, where all sessions see them."""
    for macro in _macros():
        name = f"{catalog}.main.{macro['name']}"
        yield f"CREATE OR REPLACE MACRO {name}({macro['parameters']}) AS TABLE\n{macro['body']}"
        yield f"COMMENT ON MACRO TABLE {name} IS {macro['comment']};"


def macros_of_client(uri: str, catalog: str) -> Iterator[str]:
    """Return the statements that create functions of the same names and parameters, which call the server's."""
    yield _ARGUMENT
    for macro in _macros():
        names = re.findall(r"(?:^|,)\s*(\w+)", macro["parameters"])
        given = " || ', ".join(f"{name} := ' || mistral_internal_argument({name})" for name in names)
        call = f"'FROM {catalog}.{macro['name']}({given} || ')'"
        parameters = macro["parameters"]
        if not names:
            # A call without parameters would be run as soon as its macro is created, and fail where there is no key.
            parameters, call = "nothing := NULL", f"concat('FROM {catalog}.{macro['name']}()', nothing)"
        yield (
            f"CREATE OR REPLACE TEMP MACRO {macro['name']}({parameters}) AS TABLE\nFROM quack_query('{uri}', {call});"
        )
        yield f"COMMENT ON MACRO TABLE {macro['name']} IS {macro['comment']};"


def _macros() -> Iterator[re.Match[str]]:
    for statements in macros():
        yield from _MACRO.finditer(statements)


def _extension(connection: duckdb.DuckDBPyConnection, name: str) -> str:
    """Return what LOAD takes: the file of the package of this very version, else what DuckDB has installed itself."""
    import duckdb

    package = f"duckdb-extension-{name}"
    spec = find_spec(package.replace("-", "_")) if _packaged(package, duckdb.__version__) else None
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        file = Path(folder) / "extensions" / f"v{duckdb.__version__}" / f"{name}.duckdb_extension"
        if file.is_file():
            return "'" + str(file).replace("'", "''") + "'"
    known = "SELECT 1 FROM duckdb_extensions() WHERE extension_name = $name AND installed"
    if connection.execute(known, {"name": name}).fetchone():
        return name
    raise MistralBatchError(_advice(f"DuckDB's extension {name}"))


def _packaged(package: str, wanted: str) -> bool:
    try:
        return version(package) == wanted
    except PackageNotFoundError:
        return False


def _version_of(binary: str) -> str:
    """Return the version that a duckdb shell says of itself, without its v, or nothing."""
    said = subprocess.run([binary, "--version"], capture_output=True, text=True, check=False, timeout=30)  # noqa: S603
    return said.stdout.split(" ")[0].removeprefix("v").strip()


def _advice(what: str) -> str:
    import duckdb

    here = duckdb.__version__
    return (
        f"{what[0].upper()}{what[1:]} is not installed for DuckDB {here}, which this environment has. "
        "pip install 'duckdb-mistral[shell]', in an environment of its own, brings the newest DuckDB for which PyPI "
        "has the shell and the extensions httpfs and quack. With access to DuckDB's extension server, "
        f"INSTALL httpfs; INSTALL quack; in DuckDB {here} and its duckdb shell {here} on the PATH do as well."
    )
