"""The ledger on PostgreSQL: answers that are lost, poolers, and what is told where the server is not."""

from __future__ import annotations

import contextlib
import logging
import signal
import socket
import sys
import textwrap
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa
from postgres import Postgres, Relay, is_there, new_ledger, shared_server
from submissions import JOB_ID, added, parts_of, report, submission
from support import run_python

from duckdb_mistral.errors import LedgerError
from duckdb_mistral.jobs.job import Step
from duckdb_mistral.state import postgres
from duckdb_mistral.state.home import Home
from duckdb_mistral.state.ledger import Ledger
from duckdb_mistral.state.tables import SCHEMA_VERSION

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(not is_there(), reason="no PostgreSQL is installed here")


@pytest.fixture
def address() -> str:
    """Return the address of a new schema."""
    return shared_server().new_url()


@pytest.fixture
def relay() -> Iterator[Relay]:
    """Yield a way to the server."""
    made = Relay(shared_server().port)
    yield made
    made.close()


@pytest.fixture
def ledger(home: Path, address: str, relay: Relay) -> Iterator[Ledger]:
    """Yield an empty ledger behind the relay."""
    opened = Ledger(Home(home), address.replace(f":{shared_server().port}/", f":{relay.port}/"))
    yield opened
    opened.database.close()


@pytest.fixture
def server() -> Iterator[Postgres]:
    """Yield a server of its own, which keeps what it has confirmed."""
    made = Postgres("synchronous_commit=on")
    yield made
    made.remove()


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing be tried for long."""
    monkeypatch.setattr(postgres, "PAUSES", (0.0, 0.05))


# Others at the same time


def test_forgetting_waits_for_a_move(ledger: Ledger, address: str, home: Path) -> None:
    """What another one is just moving to SENDING is not forgotten, although that is not committed yet."""
    made = added(ledger)
    other = Ledger(Home(home), address)
    with ThreadPoolExecutor(1) as pool:
        with ledger.database.writing() as connection:
            connection.exec_driver_sql("UPDATE jobs SET step = 'sending' WHERE part = 2")
            forgotten = pool.submit(other.forget, made.submission_id)
            time.sleep(0.3)
            assert not forgotten.done()
        assert forgotten.result() is False
    assert len(ledger.jobs()) == 4
    other.database.close()


@pytest.mark.parametrize("state", ["40P01", "40001"])
def test_clash_with_another_transaction(ledger: Ledger, address: str, state: str) -> None:
    """A transaction that was rolled back because of another one is run again, in one statement or in several."""
    made = added(ledger)
    clash(address, state, times=2)
    assert ledger.move(ledger.jobs()[0], Step.SENDING)
    assert clashes(address) == 2
    clash(address, state, times=2)
    ledger.retire(made.submission_id)
    assert {job.step for job in ledger.jobs()} == {Step.GIVEN_UP, Step.DROPPED}


def test_clash_without_end(ledger: Ledger, address: str, no_pauses: None) -> None:
    """A transaction that others always stand in the way of is given up in a sentence."""
    added(ledger)
    clash(address, "40P01", times=100)
    with pytest.raises(LedgerError, match=r"^Other processes keep writing the same rows .* so nothing is sent\. Try"):
        ledger.move(ledger.jobs()[0], Step.SENDING)


def clash(address: str, state: str, times: int) -> None:
    """Let the next updates of jobs fail with an SQLSTATE."""
    schema = address.rpartition("%3D")[2]
    shared_server().execute(
        f"""
        CREATE SEQUENCE IF NOT EXISTS {schema}.tries;
        SELECT setval('{schema}.tries', 1, false);
        CREATE OR REPLACE FUNCTION {schema}.clash() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
          IF nextval('{schema}.tries') <= {times} THEN
            RAISE EXCEPTION 'could not be locked' USING ERRCODE = '{state}';
          END IF;
          RETURN NULL;
        END $$;
        CREATE OR REPLACE TRIGGER clash AFTER UPDATE ON {schema}.jobs
          FOR EACH STATEMENT EXECUTE FUNCTION {schema}.clash()
        """
    )


def clashes(address: str) -> int:
    """Return how many updates failed."""
    ((tries,),) = shared_server().execute(f"SELECT last_value FROM {address.rpartition('%3D')[2]}.tries")
    return int(tries) - 1


# Answers that are lost


def test_read_whose_answer_is_lost(ledger: Ledger, relay: Relay) -> None:
    """A read whose answer is lost is repeated."""
    made = added(ledger)
    relay.lose_answer("SELECT")
    assert ledger.submissions() == [made]
    assert relay.lost == 1


def test_move_whose_answer_is_lost(ledger: Ledger, relay: Relay) -> None:
    """A move that was done although its answer is lost counts as done, once."""
    added(ledger)
    job, other, *_ = ledger.jobs()
    relay.lose_answer("UPDATE")
    assert ledger.move(job, Step.SENDING, sent_at=5, sent_here_at=6)
    assert relay.lost == 1
    (sending,) = ledger.jobs_by_key([job.key])
    assert (sending.step, sending.sent_at) == (Step.SENDING, 5)
    assert not ledger.move(job, Step.SENDING, sent_at=5, sent_here_at=6)
    relay.lose_answer("UPDATE")
    assert ledger.created(sending, report())
    assert relay.lost == 2
    assert ledger.move(other, Step.SENDING, sent_at=5)
    relay.lose_answer("UPDATE")
    assert not ledger.move(other, Step.HELD)
    assert relay.lost == 3


def test_beginning_whose_answer_is_lost(ledger: Ledger, relay: Relay) -> None:
    """A create that was written down, although the answer to that is lost, begins once; the one before is recorded."""
    first, second, *_ = ledger.jobs(added(ledger).submission_id)
    relay.lose_answer("UPDATE")
    sending = ledger.begin(first, sent_at=5, least_wait=9)
    assert sending is not None
    assert ledger.jobs_by_key([first.key]) == [sending]
    relay.lose_answer("UPDATE")
    following = ledger.begin(second, sent_at=6, least_wait=9, after=(sending, report()))
    assert relay.lost == 2
    created, begun = ledger.jobs_by_key([first.key, second.key])
    assert (created.step, following) == (Step.CREATED, begun)
    relay.lose_answer("UPDATE")
    assert ledger.begin(second, sent_at=7, least_wait=9) is None


def test_move_that_another_one_did_meanwhile(ledger: Ledger, relay: Relay) -> None:
    """If an answer is lost and another one has moved the job, that is not taken for one's own move."""
    added(ledger)
    job, *_ = ledger.jobs()
    assert ledger.move(job, Step.SENDING, sent_at=1, sent_here_at=2)
    relay.lose_answer("UPDATE")
    assert not ledger.move(job, Step.SENDING, sent_at=5, sent_here_at=6)
    assert relay.lost == 1


@pytest.mark.parametrize("marker", ["INSERT INTO submissions", "INSERT INTO parts", "INSERT INTO jobs", "COMMIT"])
def test_submission_whose_answer_is_lost(ledger: Ledger, relay: Relay, marker: str) -> None:
    """A submission is added once, and told as added, wherever the connection breaks; a second of its content is not."""
    made = submission()
    relay.lose_answer(marker)
    assert ledger.add(made, parts_of(made))
    assert relay.lost == 1
    assert (len(ledger.submissions()), len(ledger.parts(made.submission_id)), len(ledger.jobs())) == (1, 2, 4)
    other = submission()
    relay.lose_answer(marker)
    assert not ledger.add(other, parts_of(other))
    assert ledger.submissions() == [made]


@pytest.mark.parametrize("marker", ["DELETE", "COMMIT"])
def test_other_transactions_whose_answer_is_lost(ledger: Ledger, relay: Relay, marker: str) -> None:
    """What is forgotten, restored, adopted or recorded is so once, wherever the connection breaks."""
    made = added(ledger)
    relay.lose_answer(marker)
    assert ledger.forget(made.submission_id)
    assert ledger.submissions() == []
    relay.lose_answer(marker)
    assert ledger.restore(made, parts_of(made), {(1, "a"): report()}) == 3
    assert len(ledger.jobs()) == 4
    relay.lose_answer("INSERT")
    assert ledger.adopt(report(job_id="another"), "https://example.com").job_id == "another"
    for text in ("UPDATE", "COMMIT"):
        relay.lose_answer(text)
        ledger.record(report(completed_requests=3 if text == "COMMIT" else 2), report(job_id="another", model=text))
    assert relay.lost == 5
    job = ledger.job(JOB_ID)
    assert job is not None
    assert job.report is not None
    assert job.report.completed_requests == 3


def test_server_that_was_restarted(server: Postgres, home: Path) -> None:
    """Connections that a restart has broken are made again without a word, to read and to write."""
    ledger = Ledger(Home(home), server.url())
    made = added(ledger)
    for mode in ("fast", "immediate"):
        server.stop(mode)
        server.start()
        assert ledger.submissions() == [made]
        server.stop(mode)
        server.start()
        ledger.set_account(made.submission_id, mode)
        assert ledger.submissions()[0].account == mode
        made = ledger.submissions()[0]
    ledger.database.close()


def test_server_that_begins(server: Postgres, home: Path) -> None:
    """A server that is about to begin is waited for a moment."""
    server.stop()
    with ThreadPoolExecutor(1) as pool:
        opened = pool.submit(Ledger, Home(home), server.url())
        time.sleep(0.2)
        server.start()
        ledger = opened.result()
    assert ledger.jobs() == []
    ledger.database.close()


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="no process can be stopped here")
def test_server_that_is_silent(server: Postgres, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that says nothing is given up, whatever it was asked; once it goes on, it is used as before."""
    monkeypatch.setattr(postgres, "SILENT_SECONDS", 0.5)
    monkeypatch.setattr(postgres, "MOST_SECONDS", 0.0)
    ledger = Ledger(Home(home), server.url())
    made = added(ledger)
    job, *_ = ledger.jobs()
    told = r"cannot be reached \(.*\), so nothing is sent"
    for call in (ledger.jobs, lambda: ledger.move(job, Step.SENDING), lambda: ledger.retire(made.submission_id)):
        assert ledger.submissions() == [made]
        with server.stopped(), pytest.raises(LedgerError, match=told):
            call()
    assert ledger.submissions() == [made]
    ledger.database.close()


# What is told


def test_server_that_is_down(server: Postgres, home: Path, no_pauses: None) -> None:
    """A server that is down is told by its address, with what to do, and nothing more."""
    ledger = Ledger(Home(home), server.url())
    server.stop()
    where = f"127.0.0.1:{server.port}/postgres"
    told = rf"^The ledger at {where} cannot be reached \(.*refused.*\), so nothing is sent\. Check"
    for call in (ledger.jobs, lambda: added(ledger), lambda: Ledger(Home(home), server.url())):
        with pytest.raises(LedgerError, match=told) as caught:
            call()
        assert "\n" not in str(caught.value)


def test_server_of_another_kind(home: Path, no_pauses: None) -> None:
    """What speaks something else than PostgreSQL is told."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        def answer() -> None:
            with contextlib.suppress(OSError):  # once the listener is closed, or a client
                for _ in range(20):
                    client, _ = listener.accept()
                    client.recv(100)
                    client.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                    client.close()

        threading.Thread(target=answer, daemon=True).start()
        with pytest.raises(LedgerError, match=rf"^The ledger at 127.0.0.1:{port}/x cannot be reached \("):
            Ledger(Home(home), f"postgresql://me:canary-of-the-tests@127.0.0.1:{port}/x")


def test_driver_that_is_missing(home: Path, monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    """Without the driver the error says what to install."""
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(LedgerError, match=r"pip install 'duckdb-mistral\[team\]'"):
        Ledger(Home(home), address)


def test_replica(ledger: Ledger, address: str, home: Path) -> None:
    """A ledger that cannot be written is read, and a write says that it is a replica's."""
    made = added(ledger)
    read_only = Ledger(Home(home), address.replace("-csearch", "-cdefault_transaction_read_only%3Don%20-csearch"))
    assert read_only.submissions() == [made]
    with pytest.raises(LedgerError, match=r"is read-only \(.*\), as a replica is, so nothing is sent\. Set DUCKDB_"):
        added(read_only, identity="another")
    read_only.database.close()


def test_full_disk_of_the_server(ledger: Ledger, address: str) -> None:
    """A disk of the server that is full is told."""
    added(ledger)
    clash(address, "53100", times=1)
    with pytest.raises(LedgerError, match=r"has no room on the server's disk \(.*\), so nothing is sent\. Free"):
        ledger.move(ledger.jobs()[0], Step.SENDING)
    assert ledger.jobs()[0].step is Step.PLANNED


def test_user_without_rights(server: Postgres, home: Path) -> None:
    """A user who may not make tables is told so, and so is one who is not known."""
    server.execute("CREATE ROLE somebody LOGIN")
    for url in (server.url(user="somebody"), server.url(user="nobody-known")):
        with pytest.raises(LedgerError, match=r"so nothing is sent\. Check"):
            Ledger(Home(home), url)


def test_password_is_never_told(home: Path, no_pauses: None, caplog: pytest.LogCaptureFixture) -> None:
    """The password is in no traceback, no representation and no log, however the driver repeats the address."""
    caplog.set_level(logging.DEBUG)
    nowhere = "127.0.0.1:1"
    for url in (
        f"postgresql://me:canary-1-of-2@{nowhere}/team",
        f"postgresql://me:can%61ry-1-of-2@{nowhere}/team",
        f"postgresql://me@{nowhere}/team?password=canary-1-of-2",
        f"postgresql://me:canary-1-of-2@{nowhere}/team?canary-1-of-2=1",
        f"postgresql://me:canary-1-of-2@{nowhere}/team?connect_timeout=canary-1-of-2",
    ):
        with pytest.raises(LedgerError, match=r"^The ledger at ") as caught:
            Ledger(Home(home), url)
        assert "1-of-2" not in "".join(traceback.format_exception(caught.value))
    assert "1-of-2" not in caplog.text
    made = postgres.PostgresDatabase(Home(home), "postgresql://me:canary-1-of-2@127.0.0.1:1/team")
    assert "canary" not in repr(made.address) + repr(made._engine) + repr(vars(made))


def test_database_of_another_program(server: Postgres, home: Path) -> None:
    """A database with a table of the ledger's names is left alone, with how to have a schema of one's own."""
    server.execute("CREATE TABLE jobs (id INTEGER)")
    with pytest.raises(LedgerError, match=r"has a table jobs of another program.*CREATE SCHEMA"):
        Ledger(Home(home), server.url())
    assert server.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == [(1,)]
    server.execute("CREATE SCHEMA duckdb_mistral")
    ledger = Ledger(Home(home), server.url("duckdb_mistral"))
    assert ledger.jobs() == []
    ledger.database.close()


def test_database_of_another_encoding(server: Postgres, home: Path) -> None:
    """A database that cannot hold all texts is refused before anything is made."""
    for encoding in ("LATIN1", "SQL_ASCII"):
        server.execute(
            f"CREATE DATABASE {encoding} ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
        )
        with pytest.raises(LedgerError, match=r"cannot hold all texts, so nothing is sent\..*UTF8"):
            Ledger(Home(home), server.url(database=encoding.lower()))


def test_other_versions(ledger: Ledger, address: str, home: Path) -> None:
    """A ledger of a newer version is refused by both numbers, and what is none as damaged."""
    for version, told in (
        ("99", rf"written by a newer duckdb_mistral \(its version is 99, this one knows {SCHEMA_VERSION}\)"),
        ("x", r"is damaged \(its version is 'x'\), so nothing is sent"),
    ):
        with ledger.database.writing() as connection:
            connection.exec_driver_sql(f"UPDATE meta SET value = '{version}'")
        with pytest.raises(LedgerError, match=told):
            Ledger(Home(home), address)


def test_texts_that_it_cannot_hold(ledger: Ledger) -> None:
    """NUL and half a surrogate pair in a text are written as other characters."""
    added(ledger)
    job, *_ = ledger.jobs()
    assert ledger.move(job, Step.HELD, message="cut \ud83d, and \0")
    assert ledger.jobs_by_key([job.key])[0].message == "cut ?, and \ufffd"
    made = added(ledger, identity="another", output="\0")
    assert ledger.submission(made.submission_id) is not None


def test_prepared_statements(ledger: Ledger) -> None:
    """However often a statement is run, nothing is prepared at the server: a pooler may use another connection."""
    added(ledger)
    job, *_ = ledger.jobs()
    for _ in range(20):
        assert ledger.jobs()[0] == job
        ledger.keep_results(job, None)
    found = ledger.database.read(
        lambda connection: connection.exec_driver_sql("SELECT * FROM pg_prepared_statements").all()
    )
    assert found == []


def test_pooler(home: Path) -> None:
    """Through a pooler the transactions of one ledger are run on one connection after another."""
    ledger = Ledger(Home(home), new_ledger("pgbouncer"))
    own = sa.text("SELECT pg_backend_pid()")
    assert len({ledger.database.rows(own)[0][0] for _ in range(4)}) > 1
    ledger.database.close()


def test_pooler_that_takes_no_options(home: Path, address: str) -> None:
    """A pooler that refuses the options of an address is told at once, with where a schema can be chosen."""
    options = address.partition("?")[2]
    with pytest.raises(
        LedgerError,
        match=r"^The ledger at .* \(.*unsupported startup parameter.*options.*\), so nothing .* ALTER ROLE",
    ):
        Ledger(Home(home), f"{new_ledger('pgbouncer')}?{options}")


def test_round_trips(ledger: Ledger, relay: Relay) -> None:
    """A read and a move are one statement each, without a transaction around it; only several together have one."""
    added(ledger)
    job, *_ = ledger.jobs()
    relay.heard.clear()
    assert ledger.jobs()[0] == job
    assert ledger.move(job, Step.HELD)
    assert (len(relay.heard), b"BEGIN" in b"".join(relay.heard)) == (2, False)
    ledger.retire(str(job.submission_id))
    assert b"BEGIN ISOLATION LEVEL READ COMMITTED" in b"".join(relay.heard)


def test_fork(home: Path, address: str) -> None:
    """A child of fork has connections of its own, and leaves its parent's as they are."""
    code = """
    import os, sys
    from pathlib import Path
    from submissions import added
    from duckdb_mistral.state.home import Home
    from duckdb_mistral.state.ledger import Ledger

    ledger = Ledger(Home(Path(sys.argv[1])), sys.argv[2])
    made = added(ledger)
    child = os.fork()
    if not child:
        ledger.set_account(made.submission_id, "the child's")
        sys.exit(0)
    print(os.waitpid(child, 0)[1], ledger.submissions()[0].account)
    ledger.set_account(made.submission_id, "the parent's")
    print(ledger.submissions()[0].account)
    """
    child = run_python(textwrap.dedent(code), {"PYTHONPATH": ":".join(sys.path)}, str(home), address)
    assert (child.stdout, child.stderr) == ("0 the child's\nthe parent's\n", "")
