"""Files and jobs on disk: one JSON document each, replaced atomically, so that a killed server restarts intact."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

if TYPE_CHECKING:
    from collections.abc import Iterator

Document = dict[str, Any]


class Store:
    """The state directory of a server; safe for several threads of one process."""

    def __init__(self, directory: Path) -> None:
        """Open or create `directory`."""
        self.directory = directory
        self._lock = threading.RLock()
        self._documents: dict[str, dict[str, Document]] = {}
        for kind in ("files", "jobs"):
            folder = directory / kind
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for unfinished in (*folder.glob("*.tmp"), *folder.glob("*.part")):
                unfinished.unlink()
            documents = (json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*.json"))
            self._documents[kind] = {document["id"]: document for document in documents}

    def get(self, kind: str, identifier: str) -> Document | None:
        """Return a copy of a document, or None."""
        with self._lock:
            document = self._documents[kind].get(identifier)
            return dict(document) if document is not None else None

    def all(self, kind: str) -> list[Document]:
        """Return copies of all documents of a kind, newest first."""
        with self._lock:
            found = [dict(document) for document in self._documents[kind].values()]
        return sorted(found, key=lambda document: (document["made_at"], document["id"]), reverse=True)

    def put(self, kind: str, document: Document) -> None:
        """Keep a document; once this returns, it survives a kill of the process."""
        path = self.directory / kind / f"{document['id']}.json"
        temporary = path.with_suffix(f".{uuid4()}.tmp")
        with self._lock:
            temporary.write_text(json.dumps(document), encoding="utf-8")
            temporary.replace(path)
            self._documents[kind][document["id"]] = dict(document)

    def change(self, kind: str, identifier: str, **changes: Any) -> Document:
        """Change some fields of a document; return it."""
        with self._lock:
            document = self._documents[kind][identifier] | changes
            self.put(kind, document)
            return document

    def delete(self, kind: str, identifier: str) -> None:
        """Delete a document, and a file's content with it unless a job was created from it."""
        with self._lock:
            if self._documents[kind].pop(identifier, None) is None:
                return
            (self.directory / kind / f"{identifier}.json").unlink()
            used = any(identifier in job["input_files"] for job in self._documents["jobs"].values())
            if kind == "files" and not used:
                self.content(identifier).unlink(missing_ok=True)

    def content(self, file_id: str) -> Path:
        """Return the path of a file's bytes."""
        return self.directory / "files" / f"{UUID(file_id)}.bytes"

    def scratch(self) -> Path:
        """Return a path for bytes that are still arriving; leftovers are removed when the store is opened."""
        return self.directory / "files" / f"{uuid4()}.part"

    def partial(self, job_id: str, kind: str) -> Path:
        """Return a path for the lines of a running job; they are still there when the store is opened again."""
        return self.directory / "jobs" / f"{UUID(job_id)}.{kind}"

    def add_file(
        self, content: Path, *, name: str, purpose: str, workspace: str, sample_type: str, **others: Any
    ) -> Document:
        """Take over the bytes at `content` as a new file; return its document, which includes `others`.

        Lines are counted here unless `num_lines` is among the others.
        """
        identifier = str(uuid4())
        document = {
            "id": identifier,
            "workspace": workspace,
            "made_at": time.time(),
            "filename": name,
            "purpose": purpose,
            "bytes": content.stat().st_size,
            "num_lines": others["num_lines"] if "num_lines" in others else count_lines(content),
            "sample_type": sample_type,
            **others,
        }
        content.replace(self.content(identifier))
        self.put("files", document)
        return document


def count_lines(path: Path) -> int:
    """Return how many lines a file has, including a last one without a newline."""
    lines, last = 0, b"\n"
    for block in blocks(path):
        lines += block.count(b"\n")
        last = block
    return lines + (not last.endswith(b"\n"))


def blocks(path: Path, size: int = 1 << 20) -> Iterator[bytes]:
    """Yield a file's bytes."""
    with path.open("rb") as file:
        while block := file.read(size):
            yield block


def fresh_directory() -> Path:
    """Return a new temporary directory for a server's state."""
    import tempfile

    return Path(tempfile.mkdtemp(prefix=f"mistral-emulator-{os.getpid()}-"))
