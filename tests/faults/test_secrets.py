"""The key reaches the server and nothing else."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import duckdb
import pytest
from faults.harness import Story, assert_no_key, check_invariants
from support import KEY, environment_of, run_forked

from duckdb_mistral.batches.context import Context
from duckdb_mistral.emulator import Emulator
from duckdb_mistral.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

STORY = """
import logging, sys
logging.basicConfig(level=logging.DEBUG)
import duckdb, duckdb_mistral
con = duckdb_mistral.connect()
con.execute("CREATE TABLE staging AS SELECT range AS custom_id, 'prompt ' || range AS prompt FROM range(10)")
print(open(f"/proc/self/cmdline").read() if sys.platform == "linux" else "")
submission_id = con.execute("FROM mistral_batch_submit('staging')").fetchall()[0][0]
con.execute(f"FROM mistral_batch_wait('{submission_id}')").fetchall()
print(con.sql(f"FROM mistral_batch_results('{submission_id}')"))
print(con.sql("FROM duckdb_settings()").fetchall())
"""


@pytest.mark.fault("F37")
def test_nothing_tells_the_key(emulator: Emulator, home: Path) -> None:
    """With debug logging on, the key is in no output, no file and no command line of a whole run."""
    child = run_forked(STORY, environment_of(emulator, home) | {"MISTRAL_DEBUG": "1"})
    assert child.returncode == 0, child.stderr
    assert "DEBUG" in child.stderr
    assert_no_key(home, child.stdout, child.stderr)
    assert emulator.witness()["keys_seen"] == 1


@pytest.mark.fault("F37")
def test_a_server_that_echoes_the_key(
    emulator: Emulator, home: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error of the server that repeats the key reaches the user without it."""
    monkeypatch.delenv("MISTRAL_DEBUG")  # the SDK would log the server's words as they are
    caplog.set_level(logging.DEBUG)
    story = Story(emulator, home)
    emulator.faults(
        {"method": "POST", "path": "/v1/files", "status": 400, "body": f'{{"message": "no such key {KEY}"}}'},
    )
    with pytest.raises(duckdb.Error, match=r"no such key \[API key\]"):
        story.submit()
    story.go_on()
    check_invariants(story)
    assert KEY not in caplog.text
    story.close()


@pytest.mark.fault("F10", "F37")
@pytest.mark.parametrize("key", [f"{KEY}\n", f" {KEY}", f"{KEY}é"])
def test_a_key_with_a_stray_character(key: str, emulator: Emulator, home: Path) -> None:
    """A key with a character that no key has is refused by its name, not shown, and not sent."""
    story = Story(emulator, home, settings={"api_key": key})
    with pytest.raises(duckdb.Error, match="MISTRAL_API_KEY") as raised:
        story.submit()
    assert KEY not in str(raised.value)
    assert emulator.witness()["requests"] == {}
    story.close()


def test_representations_tell_no_key(home: Path) -> None:
    """What Python prints of settings and clients holds no key."""
    settings = Settings.resolve({"api_key": KEY, "home": home})
    with Context(settings).client as client:
        assert KEY not in repr(client)
        assert KEY not in repr(settings)
        assert KEY not in repr(vars(Context(settings)))


@pytest.mark.fault("F36")
def test_redirect_to_another_server(emulator: Emulator, home: Path, tmp_path: Path) -> None:
    """A redirect is not followed: the other server sees nothing."""
    with Emulator(tmp_path / "other") as other:
        story = Story(emulator, home)
        location = {"location": f"{other.url}/v1/files"}
        for status in (301, 302, 307, 308):
            emulator.faults({"method": "POST", "path": "/v1/files", "status": status, "headers": location})
            with pytest.raises(duckdb.Error, match="points elsewhere, which is not followed"):
                story.submit()
        assert other.witness()["requests"] == {}
        story.close()


@pytest.mark.fault("F36")
def test_proxy_of_the_environment(emulator: Emulator, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy of the environment does not see requests to this machine."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    story = Story(emulator, home)
    story.go_on()
    check_invariants(story)
    story.close()


def test_logging_is_on(emulator: Emulator, home: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The logging in which every fault's test looks for the key is on, the SDK's own included."""
    story = Story(emulator, home)
    story.go_on()
    assert any("authorization" in record.getMessage().lower() for record in caplog.records)
    story.close()
