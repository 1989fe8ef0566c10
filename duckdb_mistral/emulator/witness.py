"""The witness: what was asked of the server and what would be paid for, counted where the client cannot reach."""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

import duckdb

if TYPE_CHECKING:
    from duckdb_mistral.emulator.store import Document, Store


class Witness:
    """Counts of one run of the server; the rows accepted are read from the store, restarts included."""

    def __init__(self, store: Store) -> None:
        """Start all counts at zero."""
        self._store = store
        self._lock = threading.Lock()
        self._asked: Counter[str] = Counter()
        self._keys: set[str] = set()
        self._uploads = 0
        self._bytes_uploaded = 0
        self._jobs = 0
        self._peak_pending = 0

    def asked(self, route: str, key: str) -> None:
        """Count a request of a route; of the key only a hash is remembered, to tell keys apart."""
        with self._lock:
            self._asked[route] += 1
            if key:
                self._keys.add(self.pseudonym(key))

    def uploaded(self, document: Document) -> None:
        """Count a stored file."""
        with self._lock:
            self._uploads += 1
            self._bytes_uploaded += document["bytes"]

    def created(self, _job: Document, pending: int) -> None:
        """Count a stored job, which makes for `pending` requests in its workspace."""
        with self._lock:
            self._jobs += 1
            self._peak_pending = max(self._peak_pending, pending)

    @staticmethod
    def pseudonym(key: str) -> str:
        """Return a name for a key that does not tell it."""
        return hashlib.sha256(f"emulator {key}".encode()).hexdigest()[:16]

    def counts(self) -> dict[str, Any]:
        """Return all counts."""
        accepted, repeated = self._rows()
        with self._lock:
            return {
                "requests": dict(self._asked),
                "creates_received": self._asked["create"],
                "jobs_stored": self._jobs,
                "uploads_stored": self._uploads,
                "bytes_uploaded": self._bytes_uploaded,
                "peak_pending_requests": self._peak_pending,
                "rows_accepted": accepted,
                "rows_accepted_more_than_once": repeated,
                "keys_seen": len(self._keys),
            }

    def _rows(self) -> tuple[int, int]:
        """Count the rows of all jobs that are stored, and those that stand in more than one."""
        selects = []
        for job in self._store.all("jobs"):
            for file_id in job["input_files"]:
                path = str(self._store.content(file_id)).replace("'", "''")
                model = (job.get("model") or "").replace("'", "''")
                selects.append(f"SELECT md5(line || '{job['endpoint']} {model}') AS row FROM lines('{path}')")
        if not selects:
            return 0, 0
        with duckdb.connect(":memory:") as engine:
            engine.execute(
                "CREATE MACRO lines(path) AS TABLE SELECT to_json(columns(*))::VARCHAR AS line FROM "
                "(SELECT json_object('c', custom_id, 'b', body) AS line FROM read_json(path, "
                "format = 'newline_delimited', columns = {custom_id: 'VARCHAR', body: 'JSON'}, "
                "maximum_object_size = 67108864))"
            )
            row = engine.execute(
                "SELECT coalesce(sum(times), 0), count(*) FILTER (WHERE times > 1) FROM "
                f"(SELECT row, count(*) AS times FROM ({' UNION ALL '.join(selects)}) GROUP BY row)"
            ).fetchone()
        return (int(row[0]), int(row[1])) if row else (0, 0)
