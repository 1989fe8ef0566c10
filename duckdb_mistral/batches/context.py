"""What every use case works with: settings, `home`, ledger, locks, retry policy, the API's client, and an engine."""

from __future__ import annotations

import threading
import weakref
from copy import copy
from typing import Self

from duckdb_mistral.api.client import BatchClient
from duckdb_mistral.duck.engine import SpareEngine
from duckdb_mistral.runtime.retry_policy import Retry
from duckdb_mistral.settings import Settings
from duckdb_mistral.state.home import Home
from duckdb_mistral.state.ledger import Ledger
from duckdb_mistral.state.locks import Locks
from duckdb_mistral.state.store import Store


class Context:
    """One `home` and one workspace, as the settings name them."""

    def __init__(self, settings: Settings, *, retry: Retry | None = None) -> None:
        """Open nothing yet; `retry` takes the place of the policy that the settings ask for."""
        self.settings = settings
        self.home = Home(settings.home, None if settings.store is None else Store(settings.store, settings.home))
        self.retry = retry or Retry(budget_seconds=settings.deadline_seconds)
        self.locks = Locks(self.home, self.retry) if settings.ledger is None else self._leases()
        self.engines = SpareEngine()
        weakref.finalize(self, self.engines.close)  # before Python ends, too
        self._opening = threading.Lock()
        self._ledger: Ledger | None = None
        self._client: BatchClient | None = None

    @classmethod
    def of_environment(cls) -> Self:
        """Return the context that the environment's settings name; raises SettingError."""
        return cls(Settings.resolve({}))

    @property
    def ledger(self) -> Ledger:
        """The ledger, opened when it is first needed; raises LedgerError where that cannot be done."""
        with self._opening:
            if self._ledger is None:
                self._ledger = Ledger(self.home, self.settings.ledger, locks=self.locks)
            return self._ledger

    def _leases(self) -> Locks:
        """Return the locks of a ledger that several machines share."""
        from duckdb_mistral.state.leases import Leases

        return Leases(self.home, self.retry, lambda: self.ledger.database)

    def over(self, ledger: Ledger) -> Self:
        """Return this context with another ledger, as one that is being built."""
        other = copy(self)
        other._ledger = ledger
        return other

    @property
    def client(self) -> BatchClient:
        """The workspace, connected when it is first needed; raises MissingKeyError where there is no key."""
        with self._opening:
            if self._client is None:
                self._client = BatchClient(self.settings, self.retry)
            return self._client

    def close(self) -> None:
        """Close the connections to the API and to the ledger, and the engine that is kept."""
        self.engines.close()
        if self._ledger is not None:
            self._ledger.database.close()
        if self._client is not None:
            self._client.close()
            self._client = None
