"""The pages under docs/, and those of the examples: their SQL runs, prints what they show, and nothing is left out."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import pytest
from support import connect, load_script

from duckdb_mistral import errors
from duckdb_mistral.cli.commands import cli
from duckdb_mistral.settings import ENVIRONMENT

if TYPE_CHECKING:
    from duckdb_mistral.emulator import Emulator

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
REFERENCE = (DOCS / "reference.md").read_text(encoding="utf-8")
PAGES = {str(path.relative_to(ROOT)): path for path in (*DOCS.glob("*.md"), *(ROOT / "examples").rglob("*.md"))}
LINKED = {"README.md": ROOT / "README.md", "CONTRIBUTING.md": ROOT / "CONTRIBUTING.md", **PAGES}
#: A block of SQL, or the setup that a page begins with and does not show, and what its last statement prints.
BLOCK = re.compile(r"(?:```sql|<!-- setup)\n(.*?)(?:```|-->)(?:\n```text\n(.*?)```)?", re.DOTALL)
WITH_SQL = [name for name, path in PAGES.items() if BLOCK.search(path.read_text(encoding="utf-8"))]
#: What differs from run to run.
IDS = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


def printed(con: duckdb.DuckDBPyConnection, block: str, capsys: pytest.CaptureFixture[str]) -> str:
    """Run a block's statements; return what the last one prints, or its error."""
    statements = con.extract_statements(block)
    for statement in statements[:-1]:
        con.execute(statement)
    last = statements[-1]
    if last.type != duckdb.StatementType.SELECT:
        con.execute(last)
        return ""
    capsys.readouterr()
    try:
        con.execute(f"CREATE OR REPLACE TEMP TABLE shown AS {last.query.strip().rstrip(';')}")
        con.table("shown").show(max_width=200, max_rows=40)
    except duckdb.InvalidInputException as error:
        return f"{error}\n"
    return capsys.readouterr().out.rstrip() + "\n"


def without_ids(text: str) -> str:
    """Return a text in which every id is the same."""
    return IDS.sub("00000000-0000-0000-0000-000000000000", text)


@pytest.mark.parametrize("name", WITH_SQL)
def test_sql(
    name: str,
    emulator: Emulator,
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    pytestconfig: pytest.Config,
) -> None:
    """Every SQL block of a page runs, in order, and prints what the page shows after it."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    page = PAGES[name].read_text(encoding="utf-8")
    with connect(emulator, home) as con:
        for block in BLOCK.finditer(page):
            shown = printed(con, block.group(1), capsys)
            if block.group(2) is None:
                continue
            if pytestconfig.getoption("--golden") and without_ids(block.group(2)) != without_ids(shown):
                text = PAGES[name].read_text(encoding="utf-8")
                changed = block.group(0).removesuffix(f"{block.group(2)}```") + f"{shown}```"
                PAGES[name].write_text(text.replace(block.group(0), changed, 1), encoding="utf-8")
                continue
            assert without_ids(shown) == without_ids(block.group(2)), block.group(1)


def test_reference_is_up_to_date() -> None:
    """docs/reference.md is what scripts/reference.py makes of the product as it is now."""
    reference = load_script(ROOT / "scripts" / "reference.py")
    assert reference.rendered() == REFERENCE, "make reference writes it anew"


def test_everything_is_documented(con: duckdb.DuckDBPyConnection) -> None:
    """Every function with its comment, setting, command with its options, and error class stands in the reference."""
    functions = con.execute(
        "SELECT DISTINCT function_name, comment FROM duckdb_functions() "
        "WHERE function_name LIKE 'mistral%' AND NOT internal"
    ).fetchall()
    assert functions
    for name, comment in functions:
        assert f"\n### {name}\n" in REFERENCE
        assert comment in REFERENCE
    for setting, variable in ENVIRONMENT.items():
        assert f"| `{setting}` | `{variable}` |" in REFERENCE
    for name, command in cli.commands.items():
        _, _, section = REFERENCE.partition(f"\n### duckdb-mistral {name}\n")
        for parameter in command.params:
            if parameter.param_type_name == "option":
                assert max(parameter.opts, key=len) in section.partition("\n##")[0]
    for name, kind in inspect.getmembers(errors, inspect.isclass):
        if kind.__module__ == errors.__name__:
            assert f"| `{name}` |" in REFERENCE


def test_every_function_is_used(con: duckdb.DuckDBPyConnection) -> None:
    """Every function is called in some page's SQL, which another test runs."""
    sql = "\n".join(
        block.group(1) for name in WITH_SQL for block in BLOCK.finditer(PAGES[name].read_text(encoding="utf-8"))
    )
    query = "SELECT DISTINCT function_name FROM duckdb_functions() WHERE function_name LIKE 'mistral%' AND NOT internal"
    assert [name for (name,) in con.execute(query).fetchall() if f"{name}(" not in sql] == []


def lazy(text: str) -> list[str]:
    """Return the calls of `.sql` with our functions in a text of Python whose relation nobody reads."""
    found = []
    for call in re.finditer(r"(?:(\w+) = )?[\w.]+\.(?:sql|query|from_query)\((?=\s*[fFrR]*[\"'])", text):
        depth, end = 1, call.end()
        while depth and end < len(text):
            depth += {"(": 1, ")": -1}.get(text[end], 0)
            end += 1
        rest = text[end:]
        read = rest.lstrip().startswith(".") or (call.group(1) and re.search(rf"\b{call.group(1)}\b", rest))
        if "mistral_" in text[call.end() : end] and not read:
            found.append(text[call.start() : end])
    return found


SHOWN = [
    *LINKED.values(),
    *(path for folder in ("examples", "duckdb_mistral", "scripts", "sql") for path in (ROOT / folder).rglob("*.*")),
]


def test_python_that_is_shown_runs() -> None:
    """Wherever a page, an example or a docstring shows a statement in Python, it is one that runs."""
    texts = {
        path: path.read_text(encoding="utf-8") for path in SHOWN if path.suffix in (".md", ".py", ".ipynb", ".toml")
    }
    assert len(texts) > len(LINKED)
    assert {path.name: lazy(text) for path, text in texts.items() if lazy(text)} == {}


def test_lazy_is_found() -> None:
    """A relation that nobody reads is found, and what reads one is not."""
    query = "duckdb.sql(\"FROM mistral_batch_submit('s')\")"
    assert lazy(f"`{query}`") == [query]
    assert lazy(f"con = 1\njobs = {query}\nprint(1)\n") == [f"jobs = {query}"]
    assert lazy(f"{query}.show()\n({query}\n .fetchall())\njobs = {query}\njobs.show()") == []
    assert lazy("duckdb.sql('FROM staging')") == []


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub and MyST make them."""
    prose = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", prose, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", LINKED)
def test_links(name: str) -> None:
    """Every link within the repository leads to a file that is there, and to a heading that it has."""
    page = LINKED[name]
    prose = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", prose):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_every_page_is_in_the_index() -> None:
    """Every page under docs/ is reached from the index."""
    index = (DOCS / "index.md").read_text(encoding="utf-8")
    for page in DOCS.glob("*.md"):
        assert page.name == "index.md" or f"({page.name})" in index
