"""One owner of `home`: no other module joins a path under it, or makes a name there."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import duckdb_mistral

PACKAGE = Path(duckdb_mistral.__file__).parent
OWNERS = {"state/home.py", "state/names.py"}
#: These join paths too, but of files that are not under `home`.
ELSEWHERE = {
    "api/endpoints.py": "the package's own data",
    "api/sdk_fields.py": "the SDK's source",
    "cli/demo.py": "the package's own data",
    "cli/tables.py": "a temporary directory",
    "duck/sql_files.py": "the package's own SQL",
    "pricing/prices.py": "the package's own data",
    "shell/binary.py": "another environment's shell",
    "shell/extension.py": "the package's own extension",
    "shell/launcher.py": "a temporary directory",
    "state/store.py": "the store, which has the names of a home",
}
#: Calls that make one path of another; `parent` and `name` only take one apart.
MAKING = {"joinpath", "with_name", "with_stem", "with_suffix", "with_segments", "glob", "rglob", "walk"}


def joins(source: str) -> list[str]:
    """Return what makes a path of another: those calls, os.path, and a division by what is no number for certain."""
    found = []
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.BinOp(op=ast.Div(), right=divisor) | ast.AugAssign(op=ast.Div(), value=divisor):
                made = not is_number(divisor)
            case ast.Call(func=ast.Attribute(attr=name)):
                made = name in MAKING
            case ast.Attribute(value=ast.Name(id="os"), attr="path") | ast.ImportFrom(module="os.path"):
                made = True
            case _:
                made = False
        if made:
            found.append(ast.unparse(node))
    return found


def is_number(node: ast.expr) -> bool:
    """Tell whether an expression is a number by its look: a literal, a constant by its name, arithmetic, or a count."""
    match node:
        case ast.Constant(value=int() | float()):
            return True
        case ast.Name(id=name):
            return name.isupper() or name == "total"
        case ast.Call(func=ast.Name(id=name)):
            return name in {"len", "max", "min", "sum", "float", "int"}
        case ast.BinOp(left=left, right=right):
            return is_number(left) and is_number(right)
    return False


def modules() -> list[str]:
    """Return the modules of the package; the emulator never sees a `home`."""
    names = [path.relative_to(PACKAGE).as_posix() for path in sorted(PACKAGE.rglob("*.py"))]
    return [name for name in names if not name.startswith("emulator/")]


@pytest.mark.newest
def test_nobody_else_joins_a_path() -> None:
    """Only the owners of `home` join a path, and modules whose files lie elsewhere."""
    found = {name: joins((PACKAGE / name).read_text(encoding="utf-8")) for name in modules()}
    assert {name: made for name, made in found.items() if made and name not in OWNERS | ELSEWHERE.keys()} == {}
    assert all(found[name] for name in OWNERS | ELSEWHERE.keys()), "a module that joins no path any more"


@pytest.mark.parametrize(
    "source",
    [
        'home / "results"',
        'home.path / f"{key}.parquet"',
        "directory / name",
        "path /= name",
        'path.with_suffix(".read")',
        'path.with_name("other")',
        'home.joinpath("spool", name)',
        'home.glob("damaged-*")',
        'os.path.join(home, "spool")',
        "from os.path import join",
    ],
)
def test_joins_are_seen(source: str) -> None:
    """Each way to make a path of another is seen."""
    assert joins(source)


@pytest.mark.parametrize("source", ["done / total", "seconds / 60", "amount / MILLION", "a / max(1, b)", "path.parent"])
def test_arithmetic_is_none(source: str) -> None:
    """A division of numbers, and taking a path apart, are no joins."""
    assert joins(source) == []
