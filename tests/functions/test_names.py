"""What the user has named like DuckDB's functions, types and tables changes nothing of what is sent and returned."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import duckdb
import pytest
from support import connect, rows, settings_of

import duckdb_mistral
from duckdb_mistral.api.endpoints import all_endpoints
from duckdb_mistral.batches.collect import Family
from duckdb_mistral.duck.qualifying import JSON, qualified
from duckdb_mistral.duck.quoting import identifier
from duckdb_mistral.duck.sql_files import macro_files, macros, sql_directory
from duckdb_mistral.emulator import Emulator
from duckdb_mistral.functions.arguments import submit_arguments
from duckdb_mistral.functions.statements import refusal, request_statement, results_statement
from duckdb_mistral.results import convert
from duckdb_mistral.results.columns import COLUMNS
from duckdb_mistral.state.names import line_path

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: What operators, brackets and other forms of SQL may be looked up as.
OPERATORS = (
    *("||", "->", "->>", "=", "<>", "!=", "<", ">", "<=", ">=", "+", "-", "*", "/", "//", "%", "&", "|", "<<", ">>"),
    *("~", "!", "^", "**", "@", "~~", "!~~", "~~*", "!~~*", "~~~", "like_escape", "not_like_escape", "ilike_escape"),
    *("list_value", "list_extract", "array_extract", "list_slice", "array_slice", "struct_pack", "row", "map"),
    *("struct_extract", "struct_extract_at", "count_star", "coalesce", "ifnull", "case", "between", "in", "and", "or"),
    *("not", "cast", "try_cast", "collate", "exists", "is_distinct_from", "try", "unnest", "concat", "contains"),
)
#: By their first letters, so that a failure says more than that there is one.
LETTERS = ("abcdef", "ghijkl", "mnopqr", "stuvwxyz_")
#: One row and more of each kind of column that an endpoint takes.
SOURCES = {
    "/v1/chat/completions": """
        SELECT 1 AS custom_id, 'it''s' AS prompt, 'be brief' AS system, 5 AS max_tokens, 0.5 AS temperature,
          ['a', 'b'] AS stop, NULL::JSON AS response_format, NULL::STRUCT(role VARCHAR, content VARCHAR)[] AS messages
        UNION ALL SELECT 2, NULL, 'of me', NULL, NULL, NULL, '{"type": "text"}', [{'role': 'user', 'content': 'hi'}]
        UNION ALL SELECT 3, '[[error 500]]', NULL, NULL, NULL, NULL, NULL, NULL
        UNION ALL SELECT 4, chr(8232) || '{', NULL, NULL, NULL, NULL, NULL, NULL""",
    "/v1/embeddings": "SELECT 1 AS custom_id, ['a', 'b'] AS input UNION ALL SELECT 2, ['c']",
    "/v1/fim/completions": "SELECT 'a' AS custom_id, 'def f(' AS prompt, ')' AS suffix",
    "/v1/moderations": "SELECT 'a' AS custom_id, 'text' AS input",
    "/v1/chat/moderations": "SELECT 'a' AS custom_id, 'text' AS prompt, 'system' AS system",
    "/v1/ocr": """
        SELECT 1 AS custom_id, 'https://example.com/a.pdf' AS document
        UNION ALL SELECT 2, 'https://example.com/a.png'
        UNION ALL SELECT 3, '{"type": "document_url", "document_url": "https://example.com/b.pdf"}'""",
    "/v1/classifications": "SELECT 'a' AS custom_id, 'text' AS input",
    "/v1/chat/classifications": "SELECT 'a' AS custom_id, [{'role': 'user', 'content': 'x'}] AS messages",
    "/v1/conversations": "SELECT 'a' AS custom_id, 'text' AS prompt, 'do' AS system",
    "/v1/audio/transcriptions": "SELECT 'a' AS custom_id, 'https://example.com/a.mp3' AS file_url",
    "body": """SELECT 'a' AS custom_id, {'messages': [{'role': 'user', 'content': 'whole'}]} AS body""",
    "repeated": "SELECT range AS custom_id, 'the same' AS prompt FROM range(3)",
    "bad": "SELECT 1 AS custom_id, 'x' AS prompt UNION ALL SELECT 2, NULL",
    "misspelt": "SELECT 1 AS custom_id, 'x' AS prompt, 5 AS max_token",
    "twice": "SELECT unnest([1, 1]) AS custom_id, 'x' AS prompt",
}
VOLATILE = frozenset(
    {
        *("submission_id", "job_id", "checked_at", "created_at", "started_at", "completed_at"),
        *("output_file", "error_file", "metadata"),
    }
)


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    """Yield one local batch server for the whole file."""
    with Emulator(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return one state directory for the whole file, so that a submission again has to be the same."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def expected(emulator: Emulator, home: Path) -> dict[str, Any]:
    """Return what every call answers where the user has named nothing."""
    with connect(emulator, home) as con:
        make_sources(con)
        called(con)
        return called(con)


def make_sources(con: duckdb.DuckDBPyConnection) -> None:
    """Create a table of each source."""
    for name, source in SOURCES.items():
        con.execute(f"CREATE TABLE {identifier(name)} AS {source}")


def called(con: duckdb.DuckDBPyConnection) -> dict[str, Any]:
    """Return what every function answers, by its call; nothing in these calls is a function or an operator."""
    answers: dict[str, Any] = {}

    def ask(call: str, of: str, order: str = "custom_id", volatile: frozenset[str] = frozenset({"checked_at"})) -> Any:
        try:
            found = rows(con, f"FROM {call} ORDER BY {order}")
        except duckdb.Error as error:
            answers[of] = str(error).splitlines()[0]
            return []
        answers[of] = [{name: value for name, value in row.items() if name not in volatile} for row in found]
        return found

    for name in SOURCES:
        endpoint = name if name in all_endpoints() else "/v1/chat/completions"
        source = f"'{identifier(name)}', endpoint := '{endpoint}'"
        ask(f"mistral_batch_preview({source})", f"preview {name}")
        ask(f"mistral_batch_estimate({source})", f"estimate {name}", "requests")
        for row in ask(f"mistral_batch_submit({source})", f"submit {name}", "part"):
            job = row["job_id"]
            ask(f"mistral_batch_wait('{job}')", f"wait {name}", "part")
            ask(f"mistral_batch_results('{job}')", f"results {name}")
    said = """'"/v1/chat/completions"', system := 'all', params := '{"top_p": 0.5}', metadata := '{"team": "a"}'"""
    ask(f"mistral_batch_preview({said})", "preview said")
    ask(f"mistral_batch_estimate({said}, reuse := 'requests')", "estimate said", "requests")
    declared = """'"/v1/fim/completions"', output := 'STRUCT(a ENUM(''x'', ''y''), b JSON_ VARCHAR)'"""
    ask(f"mistral_batch_submit({declared})", "refused output", "part")
    typed = """'repeated', output := 'STRUCT(a ENUM(''x'', ''y''), "JSON" DOUBLE[])'"""
    for row in ask(f"mistral_batch_submit({typed}, reuse := 'requests')", "submit typed", "part", VOLATILE):
        ask(f"mistral_batch_wait('{row['submission_id']}')", "wait typed", "part", VOLATILE)
        ask(f"mistral_batch_results('{row['submission_id']}')", "results typed", "custom_id", VOLATILE)
    again = """'"/v1/chat/completions"', metadata := '{"team": "forced"}', force := true"""
    first = ask(f"mistral_batch_submit({again})", "forced", "part", VOLATILE)
    for row in first:
        ids = f"'{row['submission_id']}'"
        ask(f"mistral_batch_wait({ids}, timeout_seconds := 60)", "wait forced", "part", VOLATILE)
        ask(f"mistral_batch_results({ids}, partial := true)", "results forced", "custom_id", VOLATILE | {"response"})
        ask(f"mistral_batch_status({ids})", "status forced", "part", VOLATILE)
        ask(f"mistral_batch_cost({ids})", "cost forced", "part", VOLATILE)
        ask(f"mistral_batch_retry({ids})", "retry forced", "part", VOLATILE | {"input_bytes", "status"})
        ask(f"mistral_batch_wait({ids})", "wait retried", "part", VOLATILE)
        ask(f"mistral_batch_results({ids})", "results retried", "custom_id", VOLATILE | {"response"})
        ask(f"mistral_batch_cancel({ids})", "cancel forced", "part", VOLATILE)
    ask("mistral_batch_status('no such id')", "status of nothing", "part")
    ask("mistral_batch_results('no such id')", "results of nothing")
    ask("mistral_batch_jobs(status := 'FAILED', metadata := '{\"team\": \"a\"}')", "jobs", "job_id")
    ask("mistral_models()", "models", "id")
    return answers


def make_hostile(con: duckdb.DuckDBPyConnection, names: list[str], where: str = "TEMP") -> None:
    """Create macros of these names that answer anything with the text 'hostile', with any number of arguments."""
    scalar = ", ".join(f"({parameters}) AS 'hostile'" for parameters in ("", "a", "a, b", "a, b, c", "a, b, c, d"))
    table = ", ".join(f"({parameters}) AS TABLE (SELECT 'hostile' AS a)" for parameters in ("", "a", "a, b", "a, b, c"))
    for name in names:
        con.execute(f"CREATE OR REPLACE {where} MACRO {identifier(name)} {scalar}")
        con.execute(f"CREATE OR REPLACE {where} MACRO {identifier(name)} {table}")


def known_names(con: duckdb.DuckDBPyConnection, function_types: str = "") -> list[str]:
    """Return the names of all functions of DuckDB and of ours, but for the macros that are called."""
    found = con.execute(
        "SELECT DISTINCT function_name FROM duckdb_functions() "
        "WHERE database_name = 'system' AND regexp_matches(function_type, $1) ORDER BY 1",
        [function_types],
    ).fetchall()
    return [name for (name,) in found]


def assert_same(con: duckdb.DuckDBPyConnection, expected: dict[str, Any]) -> None:
    """Check that every call answers as it does where nothing is named."""
    found = called(con)
    different = {of: (found.get(of), answer) for of, answer in expected.items() if found.get(of) != answer}
    assert not different
    assert found.keys() == expected.keys()


def test_all_calls_say_something(expected: dict[str, Any]) -> None:
    """Of the calls that are compared, those that are no mistakes answer with rows, and the others with sentences."""
    refused = {of for of, answer in expected.items() if isinstance(answer, str)}
    bad = {f"{verb} {name}" for verb in ("submit", "preview", "estimate") for name in ("bad", "misspelt", "twice")}
    assert refused == (bad - {"preview twice"}) | {"refused output", "status of nothing", "results of nothing"}
    assert [of for of, answer in expected.items() if not answer] == ["jobs"]
    assert all(row["reused"] for of, answer in expected.items() if of == "submit /v1/ocr" for row in answer)


@pytest.mark.parametrize("letters", LETTERS)
def test_macros_named_like_functions(letters: str, expected: dict[str, Any], emulator: Emulator, home: Path) -> None:
    """Macros named like DuckDB's functions, by their first letter, change nothing."""
    with connect(emulator, home) as con:
        make_sources(con)
        make_hostile(con, [name for name in known_names(con) if name[0].lower() in letters])
        assert_same(con, expected)


@pytest.mark.parametrize("where", ["TEMP", ""])
def test_macros_named_like_operators(where: str, expected: dict[str, Any], emulator: Emulator, home: Path) -> None:
    """Macros named like operators, brackets and what stands for them change nothing."""
    with connect(emulator, home) as con:
        make_sources(con)
        make_hostile(con, list(OPERATORS), where)
        assert_same(con, expected)


def test_everything_named(expected: dict[str, Any], emulator: Emulator, home: Path, tmp_path: Path) -> None:
    """All names at once, in TEMP, in the default database and in a schema that is searched first, change nothing."""
    with connect(emulator, home) as con:
        names = [*known_names(con), *OPERATORS]
        con.execute(f"ATTACH '{tmp_path / 'mine.duckdb'}' AS mine; USE mine; CREATE SCHEMA first")
        con.execute("SET search_path = 'mine.first,mine.main'")
        make_sources(con)
        for table in sorted(names_of_ours() - SOURCES.keys()):
            con.execute(f"CREATE TABLE {table} AS SELECT 'hostile' AS custom_id, 'hostile' AS prompt")
        con.execute("CREATE TYPE \"JSON\" AS ENUM ('hostile'); CREATE TEMP TYPE \"JSON\" AS ENUM ('hostile')")
        for schema in ("first", "main"):
            con.execute(f"SET schema = 'mine.{schema}'")
            make_hostile(con, names, "")
        con.execute("SET search_path = 'mine.first,mine.main'")
        make_hostile(con, names)
        assert_same(con, expected)


def names_of_ours() -> set[str]:
    """Return the names of the tables that our templates speak of."""
    found: set[str] = set()
    for path in (sql_directory() / "templates").glob("*.sql"):
        found |= set(re.findall(r"(\w+) AS (?:MATERIALIZED )?\(\n", path.read_text(encoding="utf-8")))
    return found | {"mistral_columns", "mistral_spool", "mistral_checked", "columns", "spool", "checked"}


def test_tables_named_like_ours(emulator: Emulator, home: Path) -> None:
    """A table, a CTE or a macro's table that is named like one of our own statements' is the source that is meant."""
    with connect(emulator, home) as con:
        for name in names_of_ours():
            con.execute(f"CREATE TABLE {name} AS SELECT '{name}' AS custom_id, 'x' AS prompt")
            con.execute(f"CREATE MACRO of_{name}() AS TABLE FROM {name}")
            for source in (name, f"of_{name}()", f"SELECT * FROM {name}"):
                found = con.execute("SELECT custom_id FROM mistral_batch_preview($1)", [source]).fetchall()
                assert found == [(name,)]
                assert rows(con, "FROM mistral_batch_estimate($1)", [source])[0]["requests"] == 1
            cte = f"WITH {name} AS (SELECT 'of a CTE' AS custom_id, 'x' AS prompt)"
            found = con.execute(f"{cte} SELECT custom_id FROM mistral_batch_preview('{name}')").fetchall()
            assert found == [("of a CTE",)]


def test_macros_of_the_source(emulator: Emulator, home: Path) -> None:
    """The text of a source still means the user's macros."""
    with connect(emulator, home) as con:
        con.execute("CREATE MACRO upper(x) AS 'mine: ' || x; CREATE MACRO error(x) AS NULL")
        con.execute("CREATE MACRO range(x) AS TABLE SELECT 7 AS range")
        source = "SELECT range AS custom_id, upper('a') || coalesce(error('b'), '') AS prompt FROM range(3)"
        ((custom_id, content),) = con.execute(
            "SELECT custom_id, body->>'$.messages[0].content' FROM mistral_batch_preview($1)", [source]
        ).fetchall()
        assert (custom_id, content) == ("7", "mine: a")


def test_register_beside_macros(emulator: Emulator, home: Path) -> None:
    """Registering finds its own functions where macros have the names of those, and of what it asks."""
    with duckdb.connect() as con:
        make_hostile(con, ["txid_current", "query", "to_json", "error", "unnest"], "")
        duckdb_mistral.register(con, **settings_of(emulator, home))
        duckdb_mistral.register(con)
        assert rows(con, "FROM mistral_models()")


@pytest.mark.usefixtures("expected")
def test_responses_of_large_jobs(emulator: Emulator, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Results whose responses stay in their lines, and those with copies, are read the same beside any macro."""
    monkeypatch.setattr(convert, "LARGE_BYTES", 0)
    with connect(emulator, home) as con:
        make_sources(con)
        con.execute("CREATE TABLE large AS SELECT range AS custom_id, 'p' || range % 3 AS prompt FROM range(9)")
        (job,) = rows(con, "FROM mistral_batch_submit('large', reuse := 'requests')")
        submission_id = job["submission_id"]
        rows(con, f"FROM mistral_batch_wait('{submission_id}')")
        call = f"FROM mistral_batch_results('{submission_id}') ORDER BY custom_id"
        before = rows(con, call)
        assert len(before) == 9
        make_hostile(con, [*known_names(con), *OPERATORS])
        assert rows(con, call) == before


def statements_of_callers(tmp_path: Path) -> Iterator[tuple[str, str]]:
    """Yield every kind of statement that is run on a caller's connection, by a name."""
    yield from ((path.stem, text) for path, text in zip(macro_files(), macros(), strict=True))
    yield "refusal", refusal(COLUMNS, "No.")
    arguments = {"reuse": "submission", "timeout_hours": 24, "force": False, "params": {"extra": 1}, "system": None}
    for path in all_endpoints():
        for name in ("submit", "preview", "estimate"):
            given = arguments | {"source": "staging", "endpoint": path}
            yield f"{name} {path}", request_statement(name, submit_arguments(given, "model"))
    plain, lined = (tmp_path / f"{name}.parquet" for name in ("plain", "lined"))
    line_path(lined, 0).touch()
    families = [
        Family(model="m", generations=((plain, lined),)),
        Family(model="m", generations=((plain,), (lined,))),
        Family(model="m", generations=((plain,),), copies=plain),
    ]
    yield "results", results_statement(families)
    yield "no results", results_statement([], "STRUCT(a INTEGER)")


def test_our_own_sql_is_named_in_full(tmp_path: Path) -> None:
    """In what a caller's connection runs, no function is named plainly, and no operator stands that is a function."""
    for name, statement in statements_of_callers(tmp_path):
        assert qualified(statement) == statement, name
        plain = re.sub(r"--[^\n]*|E?'[^']*'|\"[^\"]*\"|\[\]", "", statement)
        assert re.findall(r"\|\||->|[][{}%&~^+/@!-]|<<|>>|\bI?LIKE\b|\bSIMILAR\b|\bGLOB\b", plain) == [], name
        assert re.findall(r"[\w)]\s*\*\s*[\w(]", re.sub(r"\bSELECT \*", "", plain)) == [], name


@pytest.mark.parametrize(
    ("sql", "named"),
    [
        ("SELECT sum(x), count(*) FROM t", "SELECT system.main.sum(x), system.main.count(*) FROM t"),
        ("system.main.sum(a.b(c))", "system.main.sum(a.b(c))"),
        (
            "'sum(x)' || E'it\\'s sum(x)' -- sum(x)\nsum(y)",
            "'sum(x)' || E'it\\'s sum(x)' -- sum(x)\nsystem.main.sum(y)",
        ),
        ("'it''s (f(x))' f(x)", "'it''s (f(x))' system.main.f(x)"),
        ('"f"(x) ">>"(a, 1) "a b" ("c")', 'system.main."f"(x) system.main.">>"(a, 1) "a b" ("c")'),
        (
            "x IN (1) OVER (ORDER BY y) EXCLUDE (z) AS (SELECT 1)",
            "x IN (1) OVER (ORDER BY y) EXCLUDE (z) AS (SELECT 1)",
        ),
        ("CAST(x AS INTEGER) try_cast(coalesce(a, b))", "CAST(x AS INTEGER) try_cast(coalesce(a, b))"),
        ("NULL::STRUCT(a JSON, b MAP(VARCHAR, JSON[]))", f"NULL::STRUCT(a {JSON}, b MAP(VARCHAR, {JSON}[]))"),
        ("a.JSON 'JSON' \"JSON\" XJSON JSONB", "a.JSON 'JSON' \"JSON\" XJSON JSONB"),
        ("f($name) $$.f ${own}f", "system.main.f($name) $$.f ${own}f"),
        ("CREATE OR REPLACE TEMP MACRO f(x) AS g(x)", "CREATE OR REPLACE TEMP MACRO f(x) AS system.main.g(x)"),
    ],
)
def test_qualified(sql: str, named: str) -> None:
    """Functions and the type JSON are named in full, nothing else is touched, and what is in full already stays."""
    assert qualified(sql) == named
    assert qualified(named) == named
