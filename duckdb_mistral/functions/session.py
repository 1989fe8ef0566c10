"""What the functions of one database share: settings, the context of the use cases, open spools, waits and pilots."""

from __future__ import annotations

import atexit
import threading
import weakref
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from duckdb_mistral.functions.open_spools import OpenSpools, discard_left
from duckdb_mistral.functions.waits import Waits
from duckdb_mistral.runtime.forks import is_inherited, leave_to_parent
from duckdb_mistral.runtime.memory import check_room
from duckdb_mistral.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import duckdb

    from duckdb_mistral.batches.context import Context
    from duckdb_mistral.pricing.pilot import Pilot


_sessions: weakref.WeakSet[Session] = weakref.WeakSet()


class Session:
    """One database's functions at work; every connection and cursor of the database shares it."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        """Keep the settings that were given; the rest comes from the environment at each call.

        Raises SettingError for settings that cannot be used, and where a limit leaves too little memory to work in.
        """
        check_room()
        #: By which another connection of the same database finds it.
        self.name = str(uuid4())
        self._lock = threading.Lock()
        self._given: dict[str, Any] = {}
        self._context: Context | None = None
        self._earlier: list[Context] = []
        self._piloting = threading.Lock()
        self._pilots: dict[str, list[Pilot]] = {}
        self.spools = OpenSpools()
        self.waits = Waits()
        #: Hears why the API could not be asked for jobs that a status shows all the same.
        self.on_trouble: Callable[[str], object] = lambda _: None
        #: The connections and cursors that have registered, by their address.
        self._members: set[int] = set()
        self.configure(given)
        _sessions.add(self)
        leave_to_parent(self)

    def join(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Work for a connection or cursor; when the last one is gone, so is what is heavy."""
        discard_left()
        self._members.add(id(connection))
        finalizer: Any = weakref.finalize(connection, self._leave, id(connection))
        finalizer.atexit = False

    def _leave(self, member: int) -> None:
        """Be without a connection that is gone. This runs wherever Python collects it: so it waits for nothing."""
        self._members.discard(member)
        if not self._members and self._lock.acquire(blocking=False):  # held: somebody is at work
            try:
                self._context = None
                self._earlier.clear()
                self._pilots.clear()
            finally:
                self._lock.release()
            self.spools.leave()

    def configure(self, given: Mapping[str, Any]) -> None:
        """Take over the settings in `given` and keep the others; raises SettingError before changing any."""
        merged = self._given | {name: value for name, value in given.items() if value is not None}
        Settings.resolve(given)
        Settings.resolve(merged)
        self._given = merged

    @property
    def settings(self) -> Settings:
        """The settings as they are now."""
        return Settings.resolve(self._given)

    def context(self) -> Context:
        """Return what use cases work with, for the settings as they are now; raises LedgerError."""
        from duckdb_mistral.batches.context import Context

        settings = self.settings
        with self._lock:
            if self._context is None or self._context.settings != settings or not settings.home.exists():
                if self._context is not None:
                    self._earlier.append(self._context)  # a call on another thread may still be at it
                    self._context = None
                context = Context(settings)
                _ = context.ledger
                self._context = context
            return self._context

    def pilot(self, fingerprint: str, run: Callable[[], list[Pilot]]) -> list[Pilot]:
        """Return what a pilot has answered; `run` asks it, once for each fingerprint: it is paid for."""
        with self._piloting:
            if fingerprint not in self._pilots:
                self._pilots[fingerprint] = run()
            return self._pilots[fingerprint]

    def close(self) -> None:
        """Let go of connections to the API, and of waits and spools whose statement never came to its end."""
        self.waits.leave()
        self.spools.discard_all()
        with self._lock:
            if self._context is not None:
                self._earlier.append(self._context)
                self._context = None
            for context in self._earlier:
                context.close()
            self._earlier.clear()


@atexit.register
def _close_all() -> None:
    """Close what is still open when Python ends."""
    discard_left()
    for session in list(_sessions):
        if not is_inherited(session):
            session.close()
