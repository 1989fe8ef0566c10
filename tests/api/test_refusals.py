"""Every bad input of the contract: the sentence that a person reads, and no request at the server."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pytest
from support import KEY, answered, asked_for_money, connect, make_staging, rows, settings_of, submitted

import duckdb_mistral
from duckdb_mistral.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Iterator

UNKNOWN_ID = "3f2a9c1e-0000-4000-8000-00000000000a"
#: What a person should not have to read.
NOISE = re.compile(
    r"Traceback|File \"|line \d+, |\b(None|True|False)\b|Error\(|Exception|mistral_internal|dict|<class|0x[0-9a-f]{6}"
)


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    """Yield one local batch server for the whole file."""
    with Emulator(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture(scope="module")
def staged(emulator: Emulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[duckdb.DuckDBPyConnection]:
    """Yield one connection for what is refused; it has the table staging with custom_ids 0, 1 and 2."""
    with connect(emulator, tmp_path_factory.mktemp("state") / "home") as con:
        make_staging(con)
        yield con


def refusal(con: duckdb.DuckDBPyConnection, query: str) -> str:
    """Run a query that is refused, and return the sentence, which must be one for a person."""
    with pytest.raises(duckdb.Error) as caught:
        con.execute(query).fetchall()
    kind, colon, sentence = str(caught.value).partition(" Error: ")
    assert colon, f"not DuckDB's own prefix: {caught.value}"
    assert kind == "Invalid Input", caught.value
    assert "Invalid Input Error" not in sentence
    assert not NOISE.search(sentence), sentence
    assert sentence[-1] in ".!", sentence
    assert "\n" not in sentence
    return sentence


def of_source(source: str, arguments: str = "") -> str:
    """Return a submit of `source`."""
    return f"FROM mistral_batch_submit($source${source}$source${', ' + arguments if arguments else ''})"


def with_arguments(arguments: str) -> str:
    """Return a submit of the good table with `arguments`."""
    return of_source("staging", arguments)


SOURCES = {
    "no custom_id": ("SELECT prompt FROM staging", "no column custom_id"),
    "custom_ID2": (
        "SELECT custom_id AS custom_ID2, prompt FROM staging",
        "no column custom_id (was custom_ID2 meant to be custom_id?)",
    ),
    "customId": ("SELECT custom_id AS customId, prompt FROM staging", "was customId meant to be custom_id?"),
    "custom id": ('SELECT custom_id AS "custom id", prompt FROM staging', "was custom id meant to be custom_id?"),
    "a NULL custom_id": (
        "SELECT nullif(custom_id, '1') AS custom_id, prompt FROM staging",
        "1 row has no custom_id",
    ),
    "only NULL custom_ids": ("SELECT NULL AS custom_id, prompt FROM staging", "3 rows have no custom_id"),
    "duplicates": (
        "SELECT 'a' AS custom_id, prompt FROM staging UNION ALL FROM staging",
        "repeats 2 of its 6 custom_ids: a (3 times)",
    ),
    "duplicates as VARCHAR": (
        "SELECT unnest([1::UNION(n INTEGER, t VARCHAR), '1']) AS custom_id, 'hi' AS prompt",
        "repeats 1 of its 2 custom_ids: 1 (2 times)",
    ),
    "no prompt column": ("SELECT custom_id FROM staging", "no column prompt, messages or body"),
    "promt": ("SELECT custom_id, prompt AS promt FROM staging", "was promt meant to be prompt?"),
    "Message": ("SELECT custom_id, [1] AS Message FROM staging", "was Message meant to be messages?"),
    "a NULL prompt": (
        "SELECT custom_id, nullif(prompt, 'prompt 1') AS prompt FROM staging",
        "1 row has no prompt. For example custom_id 1",
    ),
    "only NULL prompts": ("SELECT custom_id, NULL AS prompt FROM staging", "3 rows have no prompt"),
    "prompt and messages": (
        "SELECT *, [{'role': 'user', 'content': 'hi'}] AS messages FROM staging",
        "3 rows have both prompt and messages",
    ),
    "prompt and body": ("SELECT *, {'messages': []} AS body FROM staging", "both body and prompt"),
    "body and max_tokens": (
        "SELECT custom_id, {'messages': []} AS body, 5 AS max_tokens FROM staging",
        "a body beside other fields of the request",
    ),
    "messages that are no JSON": (
        "SELECT custom_id, 'hi' AS messages FROM staging",
        "messages not given as a JSON list",
    ),
    "messages that are an object": (
        "SELECT custom_id, '{}'::JSON AS messages FROM staging",
        "messages not given as a JSON list",
    ),
    "messages that are empty": ("SELECT custom_id, '[]' AS messages FROM staging", "an empty list of messages"),
    "a body that is no JSON": (
        "SELECT custom_id, 'hi' AS body FROM staging",
        "a body that is not a JSON object (text belongs in prompt)",
    ),
    "a body that is a list": ("SELECT custom_id, [1] AS body FROM staging", "a body that is not a JSON object"),
    "response_format that is no JSON": (
        "SELECT *, CASE custom_id WHEN '1' THEN 'json' END AS response_format FROM staging",
        "1 row has a response_format that is not JSON. For example custom_id 1",
    ),
    "a temperature that is NaN": (
        "SELECT *, CASE custom_id WHEN '1' THEN 'nan'::DOUBLE END AS temperature FROM staging",
        "1 row has a number in temperature that is NaN or infinite. For example custom_id 1",
    ),
    "an infinite number in JSON": (
        """SELECT *, '[{"at": -Infinity}]' AS tools FROM staging""",
        "a number in tools that is NaN or infinite",
    ),
    "an infinite number in a body": (
        "SELECT custom_id, {'messages': [{'content': 'hi'}], 'top_p': 'inf'::FLOAT} AS body FROM staging",
        "a number in body that is NaN or infinite",
    ),
    "a number in messages that is NaN": (
        "SELECT custom_id, [{'role': 'user', 'content': 'NaN', 'weight': 'nan'::DOUBLE}] AS messages FROM staging",
        "3 rows have a number in messages that is NaN or infinite",
    ),
    "a number in messages as text that is NaN": (
        """SELECT custom_id, '[{"role": "user", "content": "NaN", "weight": NaN}]' AS messages FROM staging""",
        "a number in messages that is NaN or infinite",
    ),
    "a number in stop that is infinite": (
        "SELECT *, ['inf'::DOUBLE] AS stop FROM staging",
        "a number in stop that is NaN or infinite",
    ),
    "two problems": (
        "SELECT nullif(custom_id, '0') AS custom_id, nullif(prompt, 'prompt 1') AS prompt FROM staging",
        "1 row has no custom_id; 1 row has no prompt",
    ),
    "max tokens": ('SELECT *, 5 AS "max tokens" FROM staging', 'leave it out (SELECT * EXCLUDE ("max tokens"))'),
    "max_token": ("SELECT *, 5 AS max_token FROM staging", "max_token looks like a misspelt max_tokens"),
    "maxTokens": ("SELECT *, 5 AS maxTokens FROM staging", "maxTokens looks like a misspelt max_tokens"),
    "temprature": ("SELECT *, 0 AS temprature FROM staging", "temprature looks like a misspelt temperature"),
    "no rows": ("SELECT * FROM staging WHERE false", "has no rows, so there is nothing to send. Nothing was sent."),
    "two statements": ("SELECT * FROM staging; SELECT 1", "these are 2 statements"),
    "a name and a statement": ("staging; DROP TABLE staging", "the text of one SELECT"),
    "brackets that close early": ("SELECT * FROM staging) UNION ALL (SELECT 1, 2", "the text of one SELECT"),
    "DROP": ("DROP TABLE staging", "statement of the kind DROP"),
    "DELETE with RETURNING": ("DELETE FROM staging RETURNING *", "statement of the kind DELETE"),
    "INSERT after a CTE": ("WITH a AS (FROM staging) INSERT INTO staging FROM a", "statement of the kind INSERT"),
    "COPY": ("COPY staging TO '/tmp/x.csv'", "statement of the kind COPY"),
    "EXPLAIN": ("EXPLAIN SELECT 1", "statement of the kind EXPLAIN"),
    "nonsense": ("one two three four", 'syntax error at or near "one"'),
    "an error of the source itself": (
        "SELECT custom_id, error('the sky is falling.') AS prompt FROM staging",
        "the sky",
    ),
    "nothing": ("", "must be the name of a table or view"),
    "blanks": (" \n", "must be the name of a table or view"),
    "a comment": ("-- staging", "must be the name of a table or view"),
}

ARGUMENTS = {
    "a long metadata key": ("metadata := {'" + "k" * 33 + "': 'v'}", "has 33 characters; the API takes 1 to 32"),
    "an empty metadata key": ("metadata := MAP {'': 'v'}", "has 0 characters; the API takes 1 to 32"),
    "a long metadata value": ("metadata := {'team': repeat('v', 513)}", "of 'team' has 513 characters"),
    "an empty metadata value": ("metadata := {'team': ''}", "of 'team' has 0 characters"),
    "a list in metadata": ("metadata := {'team': ['a']}", "'team' is a list or a struct"),
    "a key of our own": ("metadata := {'duckdb_mistral_part': '1'}", "cannot use the key 'duckdb_mistral_part'"),
    "metadata that is no object": ("metadata := ['a']", "metadata must be a STRUCT or a JSON object"),
    "metadata that is no JSON": ("metadata := 'team'", "metadata is text, but not JSON"),
    "a number as model": ("model := 5", "model must be a model's name, or a list of them, but is 5"),
    "an empty model": ("model := ' '", "model must be a model's name"),
    "no model of a list": ("model := []", "model must be a model's name"),
    "NULL in models": ("model := ['a', NULL]", 'but is ["a", null]'),
    "a model twice": ("model := ['a', 'b', 'a']", "names a model twice"),
    "a STRUCT as model": ("model := {'name': 'a'}", "model must be a model's name"),
    "an unknown endpoint": (
        "endpoint := '/v1/nothing'",
        "no batch endpoint '/v1/nothing'; the API has /v1/chat/completions",
    ),
    "an endpoint to climb by": ("endpoint := '/v1/../models'", "no batch endpoint"),
    "no endpoint": (
        "endpoint := NULL",
        "endpoint must be text such as '/v1/chat/completions', but is NULL. Nothing was sent.",
    ),
    "a number as endpoint": (
        "endpoint := 5",
        "endpoint must be text such as '/v1/chat/completions', but is 5. Nothing was sent.",
    ),
    "params without names": ("params := row(5)", "Nothing was sent."),
    "a param without a name": ("params := MAP {'': 5}", "params holds a field without a name"),
    "params that are no JSON": ("params := 'max_tokens'", "params is text, but not JSON"),
    "params that are a list": ("params := [1]", "params must be a STRUCT or a JSON object"),
    "a misspelt param": ("params := {'max_token': 5}", "max_token, which looks like a misspelt max_tokens"),
    "a prompt in params": ("params := {'prompt': 'hi'}", "params cannot hold prompt"),
    "messages in params": ("params := {'messages': []}", "params cannot hold messages"),
    "text for an object in params": (
        "params := {'response_format': 'json'}",
        "params.response_format is text, but not JSON: 'json'",
    ),
    "no hours": ("timeout_hours := 0", "a whole number from 1 to 168, or 7 days, but is 0"),
    "too many hours": ("timeout_hours := 169", "but is 169"),
    "half an hour": ("timeout_hours := 0.5", "but is 0.5"),
    "hours as text": ("timeout_hours := 'a day'", "but is 'a day'"),
    "NULL hours": ("timeout_hours := NULL", "but is NULL"),
    "force as text": ("force := 'yes'", "force must be true or false, but is 'yes'"),
    "a number as system": ("system := 5", "system must be text, but is 5"),
    "an unknown reuse": ("reuse := 'rows'", "reuse must be 'submission' or 'requests', but is 'rows'"),
}

CALLS = {
    "NULL as source": ("FROM mistral_batch_submit(NULL)", "source must be the name of a table or view"),
    "a number as source": ("FROM mistral_batch_submit(5)", "source must be the name of a table or view"),
    "status of a path": ("FROM mistral_batch_status('../../models')", "'../../models' is not an id"),
    "results of a path": ("FROM mistral_batch_results('../../models')", "'../../models' is not an id"),
    "wait for a path": ("FROM mistral_batch_wait('../../models')", "'../../models' is not an id"),
    "cancel of a path": ("FROM mistral_batch_cancel('../../models')", "'../../models' is not an id"),
    "status of nothing": ("FROM mistral_batch_status('')", "'' is not an id"),
    "status of a number": ("FROM mistral_batch_status(5)", "'5' is not an id"),
    "results with partial as text": (
        "FROM mistral_batch_results(partial := 'false')",
        "partial must be true or false, but is 'false'",
    ),
    "embeddings of a STRUCT": (
        "FROM mistral_batch_submit($$SELECT 1 AS custom_id, {'a': 1} AS input$$, endpoint := 'embeddings')",
        "1 row has an input that is neither text nor a list",
    ),
    "results of a number": ("FROM mistral_batch_results(5)", "id must be a submission or job id as text, but is 5"),
    "wait for NULL": ("FROM mistral_batch_wait(NULL)", "The id is NULL"),
    "cancel of NULL": ("FROM mistral_batch_cancel(NULL)", "The id is NULL"),
    "jobs of several models": ("FROM mistral_batch_jobs(model := ['a', 'b'])", 'model must be text, but is ["a", "b"]'),
    "jobs by metadata that is no object": (
        "FROM mistral_batch_jobs(metadata := 'team')",
        "metadata is text, but not JSON",
    ),
}

TABLE = {
    **{name: (of_source(source), words) for name, (source, words) in SOURCES.items()},
    **{name: (with_arguments(arguments), words) for name, (arguments, words) in ARGUMENTS.items()},
    **CALLS,
}


@pytest.mark.parametrize(("query", "words"), TABLE.values(), ids=TABLE)
@pytest.mark.fault("F17", "F18")
def test_refused(staged: duckdb.DuckDBPyConnection, emulator: Emulator, query: str, words: str) -> None:
    """A bad input is refused by a sentence that names it, before anything is sent."""
    before = emulator.witness()["requests"]
    assert words in refusal(staged, query)
    assert emulator.witness()["requests"] == before
    assert staged.execute("SELECT count(*) FROM staging").fetchone() == (3,)


def test_statements_that_fail_leave_no_requests(emulator: Emulator, home: Path) -> None:
    """What a statement that failed had spooled is gone with the next submit of its connection."""
    failing = "SELECT *, CASE custom_id WHEN '2' THEN error('not so.') END AS stop FROM staging"
    with connect(emulator, home) as con:
        make_staging(con, 3)
        for _ in range(3):
            assert "not so." in refusal(con, of_source(failing))
            assert len(list((home / "spool").iterdir())) == 1
        submission = submitted(con, "staging")
        assert [path.name for path in (home / "spool").iterdir()] == [submission]


PREVIEWED = {name: case for name, case in SOURCES.items() if "twice" not in name and "duplicates" not in name}
PREVIEWED.pop("no rows")
PREVIEWED.pop("two problems")


@pytest.mark.parametrize("source", [source for source, _ in PREVIEWED.values()], ids=PREVIEWED)
def test_preview_refuses_too(staged: duckdb.DuckDBPyConnection, source: str) -> None:
    """Preview refuses what submit refuses of rows and columns, in a sentence."""
    for columns in ("*", "custom_id"):
        assert refusal(staged, f"SELECT {columns} FROM mistral_batch_preview($source${source}$source$)")


def test_preview_of_no_rows(staged: duckdb.DuckDBPyConnection) -> None:
    """A preview of no rows has none, and refuses wrong columns all the same."""
    assert rows(staged, "FROM mistral_batch_preview('SELECT * FROM staging WHERE false')") == []
    assert "misspelt" in refusal(staged, "FROM mistral_batch_preview('SELECT *, 1 AS max_token FROM staging LIMIT 0')")


NAMES = {
    "missing": "missing does not exist",
    "SELECT * FROM missing": "missing does not exist",
    "nowhere.missing": "missing",
    "SELECT nothing FROM staging": "nothing",
}


@pytest.mark.parametrize(("source", "words"), NAMES.items(), ids=NAMES)
def test_names_that_duckdb_does_not_know(
    staged: duckdb.DuckDBPyConnection, emulator: Emulator, source: str, words: str
) -> None:
    """A table or column that is not there is told in DuckDB's own words, and nothing is sent."""
    before = emulator.witness()["requests"]
    with pytest.raises((duckdb.CatalogException, duckdb.BinderException), match=words) as caught:
        staged.execute(of_source(source))
    assert not re.search(r"Traceback|mistral_internal", str(caught.value))
    assert emulator.witness()["requests"] == before


@pytest.mark.parametrize("function", ["status", "wait", "results", "cancel"])
@pytest.mark.fault("F36")
def test_unknown_job(staged: duckdb.DuckDBPyConnection, emulator: Emulator, function: str) -> None:
    """An id that neither the ledger nor the workspace knows is told so, after one look at the server."""
    before = emulator.witness()["requests"].get("job", 0)
    sentence = refusal(staged, f"FROM mistral_batch_{function}('{UNKNOWN_ID}')")
    assert f"There is no submission or job {UNKNOWN_ID}" in sentence
    assert emulator.witness()["requests"]["job"] == before + 1


def test_unknown_model(emulator: Emulator, home: Path) -> None:
    """A model that the API refuses is told in the API's words, and the statement can be run again."""
    emulator.faults(
        {"method": "POST", "path": "/v1/batch/jobs", "status": 400, "body": '{"message": "Invalid model: x"}'}
    )
    with connect(emulator, home) as con:
        make_staging(con)
        sentence = refusal(con, with_arguments("model := 'x'"))
        assert "answered HTTP 400: Invalid model: x" in sentence
        assert submitted(con, arguments="model := 'x'")


# The key


@pytest.mark.parametrize(
    ("key", "words"),
    [
        (None, "No API key is set: set MISTRAL_API_KEY"),
        ("", "No API key is set: set MISTRAL_API_KEY"),
        ("canary-key\n", "a line break"),
        ("canary key", "contains a space"),
        ("canary-kéy", "another character"),
    ],
)
@pytest.mark.parametrize(
    "call",
    [
        "FROM mistral_batch_submit('staging')",
        "FROM mistral_batch_jobs()",
        "FROM mistral_models()",
        f"FROM mistral_batch_status('{UNKNOWN_ID}')",
    ],
    ids=["submit", "jobs", "models", "status"],
)
@pytest.mark.fault("F10")
def test_key_that_cannot_be_sent(emulator: Emulator, home: Path, key: str | None, words: str, call: str) -> None:
    """A missing key, or one that no header can hold, is refused by name and never echoed."""
    before = emulator.witness()["requests"]
    with duckdb_mistral.connect(settings=settings_of(emulator, home) | {"api_key": key}) as con:
        make_staging(con)
        sentence = refusal(con, call)
    assert words in sentence
    assert "canary" not in sentence
    assert emulator.witness()["requests"] == before


@pytest.mark.fault("F10")
def test_refused_key(tmp_path: Path, home: Path) -> None:
    """A key that the API refuses is told so, with what to check, and is not echoed."""
    with Emulator(tmp_path / "server", api_keys=("another",)) as emulator, connect(emulator, home) as con:
        make_staging(con)
        sentence = refusal(con, "FROM mistral_batch_submit('staging')")
        assert "refused the API key (HTTP 401: Unauthorized). Check MISTRAL_API_KEY" in sentence
        assert KEY not in sentence
        assert asked_for_money(emulator)[1] == 0


# Settings


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"server_url": "http://api.mistral.ai"}, "plain http would show the API key to the network"),
        ({"server_url": "http://127.0.0.1.example.com"}, "plain http would show the API key"),
        ({"server_url": "ftp://localhost"}, "must be an address such as https://api.mistral.ai"),
        ({"server_url": "https://user:word@host"}, "must be an address such as"),
        ({"server_url": "localhost:8000"}, "must be an address such as"),
        ({"max_requests_per_job": 0}, "max_requests_per_job must be a whole number of at least 1"),
        ({"max_bytes_per_file": "many"}, "max_bytes_per_file must be a whole number"),
        ({"poll_seconds": -1}, "poll_seconds must be a number of seconds"),
        ({"reconcile_seconds": "nan"}, "reconcile_seconds must be a number of seconds"),
        ({"apikey": "x"}, "There is no setting apikey; the settings are api_key"),
    ],
)
@pytest.mark.fault("F36")
def test_bad_setting(setting: dict[str, Any], words: str) -> None:
    """A setting that cannot be used is refused when it is given, by name."""
    con = duckdb.connect()
    with pytest.raises(duckdb_mistral.SettingError) as caught:
        duckdb_mistral.register(con, **setting)
    assert words in str(caught.value)
    con.close()


@pytest.mark.parametrize("given", ["tickets.duckdb", Path("tickets.duckdb"), 5])
def test_registering_on_no_connection(given: Any) -> None:
    """What is no connection is refused by a sentence that says what takes a database's name."""
    with pytest.raises(
        duckdb_mistral.ArgumentError, match=r"takes a DuckDB connection, not .*connect\(\) takes the name"
    ):
        duckdb_mistral.register(given)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"model": "x"}, r"connect\(…, settings=\{'model': …\}\)"),
        ({"api_key": KEY, "read_only": False}, r"connect\(…, settings=\{'api_key': …\}\)"),
        ({"modell": "x"}, r"does not take modell\. It takes the name of a database"),
        ({"read_only": KEY}, r"does not take read_only\. It takes"),
        ({"config": KEY}, r"does not take config\. It takes"),
        ({"settings": KEY}, r"settings must be a dictionary such as \{'model': …\}, not a str"),
        ({"settings": [KEY]}, "settings must be a dictionary"),
        ({"settings": {5: KEY}}, "There is no setting 5"),
    ],
)
def test_connecting_with_what_it_does_not_take(given: dict[str, Any], words: str) -> None:
    """What stands in the wrong place is told by its name, in a sentence that shows no value."""
    with pytest.raises(duckdb_mistral.MistralBatchError, match=words) as caught:
        duckdb_mistral.connect(**given)
    assert KEY not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_bad_setting_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that cannot be used is an error of the call that needs it, and names the variable."""
    with duckdb_mistral.connect() as con:
        monkeypatch.setenv("DUCKDB_MISTRAL_POLL_SECONDS", "often")
        monkeypatch.setenv("MISTRAL_API_KEY", KEY)
        sentence = refusal(con, "FROM mistral_batch_status()")
        assert "The environment variable DUCKDB_MISTRAL_POLL_SECONDS must be a number of seconds" in sentence
        assert "DUCKDB_MISTRAL_POLL_SECONDS" in refusal(con, "FROM mistral_batch_results()")
        assert "DUCKDB_MISTRAL_POLL_SECONDS" in refusal(
            con, "FROM mistral_batch_submit('SELECT 1 AS custom_id, 2 AS prompt')"
        )


@pytest.mark.fault("F33")
def test_home_that_cannot_be_written(emulator: Emulator, tmp_path: Path) -> None:
    """Where the state directory cannot be made, nothing is sent, and the sentence says what to set."""
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    before = emulator.witness()["requests"]
    with connect(emulator, tmp_path / "file" / "home") as con:
        make_staging(con)
        for call in ("submit('staging')", "status()", "results()"):
            sentence = refusal(con, f"FROM mistral_batch_{call}")
            assert "cannot be written" in sentence
            assert "DUCKDB_MISTRAL_HOME" in sentence
    assert emulator.witness()["requests"] == before


def test_damaged_ledger(emulator: Emulator, home: Path) -> None:
    """A ledger that is no database is told so, and nothing is sent."""
    home.mkdir()
    (home / "ledger.sqlite").write_text("this is no database" * 1000, encoding="utf-8")
    before = emulator.witness()["requests"]
    with connect(emulator, home) as con:
        make_staging(con)
        sentence = refusal(con, "FROM mistral_batch_submit('staging')")
    assert "ledger.sqlite is damaged" in sentence
    assert emulator.witness()["requests"] == before


# Limits and endings


@pytest.mark.fault("F18")
def test_request_larger_than_a_file(emulator: Emulator, home: Path) -> None:
    """One request that is larger than a file may be is refused with its size and its beginning."""
    before = emulator.witness()["requests"]
    with connect(emulator, home, max_bytes_per_file=500) as con:
        make_staging(con)
        sentence = refusal(con, of_source("FROM staging UNION ALL SELECT 'big', repeat('x', 1000)"))
        assert "more than a file may hold (500, the setting max_bytes_per_file)" in sentence
        assert '{"custom_id":"big"' in sentence
        assert emulator.witness()["requests"] == before
        assert [row["outcome"] for row in answered(con, submitted(con))] == ["ok"] * 3


def test_results_before_the_end(tmp_path: Path, home: Path) -> None:
    """Results of a job that goes on are refused with its status, how far it is, and how to wait."""
    with Emulator(tmp_path / "server", job_seconds=600) as emulator, connect(emulator, home) as con:
        make_staging(con)
        submission_id = submitted(con)
        job_id = rows(con, "FROM mistral_batch_status()")[0]["job_id"]
        for identifier in (submission_id, job_id):
            sentence = refusal(con, f"FROM mistral_batch_results('{identifier}')")
            assert re.search(rf"Job {job_id} is (QUEUED|RUNNING): \d of 3 requests are done\.", sentence)
            assert f"mistral_batch_wait('{identifier}')" in sentence
        assert con.execute("FROM mistral_batch_results()").fetchall() == []
        assert emulator.witness()["requests"].get("download", 0) == 0


def test_wait_past_its_timeout(tmp_path: Path, home: Path) -> None:
    """A wait past its timeout raises with how far the job is, and says that the job runs on."""
    with Emulator(tmp_path / "server", job_seconds=600) as emulator, connect(emulator, home) as con:
        make_staging(con)
        sentence = refusal(con, f"FROM mistral_batch_wait('{submitted(con)}', timeout_seconds := 0.1)")
        assert "gave up after 0.1 seconds" in sentence
        assert "The jobs run on" in sentence
        assert emulator.witness()["requests"].get("cancel", 0) == 0


@pytest.mark.fault("F16")
def test_job_of_another_server(emulator: Emulator, home: Path, tmp_path: Path) -> None:
    """A job is not looked for at a server that it does not belong to."""
    with connect(emulator, home) as con:
        make_staging(con)
        submission_id = submitted(con, arguments="metadata := {'test': 'another server'}")
    with Emulator(tmp_path / "server") as other, connect(other, home) as con:
        for function in ("wait", "cancel"):
            sentence = refusal(con, f"FROM mistral_batch_{function}('{submission_id}')")
            assert f"belongs to {emulator.url}, but this connection talks to {other.url}" in sentence
        assert other.witness()["requests"] == {}


def test_unreachable_server(home: Path) -> None:
    """Where nothing listens, the sentence says which server gave no answer."""
    settings = {"api_key": KEY, "server_url": "http://127.0.0.1:9", "home": home, "deadline_seconds": 0.1}
    with duckdb_mistral.connect(settings=settings) as con:
        make_staging(con)
        sentence = refusal(con, "FROM mistral_batch_submit('staging')")
    assert "http://127.0.0.1:9 gave no answer" in sentence
