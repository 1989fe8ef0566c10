"""The witness: what was asked of the server and what would be paid for, counted where the client cannot reach."""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

import duckdb

if TYPE_CHECKING:
    from duckdb_mistral.emulator.store import Document, Store


#: The way that jobs are read, except that a line that is not a request counts as a row of NULLs.
READING = (
    "format = 'newline_delimited', columns = {custom_id: 'VARCHAR', body: 'JSON'}, "
    "maximum_object_size = 67108864, ignore_errors = true"
)


class Witness:
    """Counts of one run of the server; accepted rows are counted from the store, across restarts."""

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
        """Count a request to a route; only a hash of the key is remembered, to tell keys apart."""
        with self._lock:
            self._asked[route] += 1
            if key:
                self._keys.add(self.pseudonym(key))

    def uploaded(self, document: Document) -> None:
        """Count a stored file."""
        with self._lock:
            self._uploads += 1
            self._bytes_uploaded += document["bytes"]

    def created(self, pending: int) -> None:
        """Count a stored job, with which its workspace has `pending` requests pending."""
        with self._lock:
            self._jobs += 1
            self._peak_pending = max(self._peak_pending, pending)

    @staticmethod
    def pseudonym(key: str) -> str:
        """Return a name for a key that does not reveal it."""
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
        """Count the rows of all stored jobs, and how many different rows occur more than once."""
        files: dict[tuple[str, str], list[str]] = {}
        for job in self._store.all("jobs"):
            paths = (_text(str(self._store.content(file_id))) for file_id in job["input_files"])
            files.setdefault((job["endpoint"], job.get("model") or ""), []).extend(paths)
        rows = [
            f"SELECT hash({_text(endpoint)}, {_text(model)}, custom_id, body) AS row "
            f"FROM read_json([{', '.join(paths)}], {READING})"
            for (endpoint, model), paths in files.items()
            if paths
        ]
        if not rows:
            return 0, 0
        with duckdb.connect(":memory:") as engine, engine.cursor() as connection:  # a cursor shows no progress bar
            counted = connection.execute(
                "SELECT coalesce(sum(times), 0), count(*) FILTER (WHERE times > 1) "
                f"FROM (SELECT count(*) AS times FROM ({' UNION ALL '.join(rows)}) GROUP BY row)"
            ).fetchone()
        return (int(counted[0]), int(counted[1])) if counted else (0, 0)


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
