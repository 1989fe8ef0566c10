"""Sends one job's requests to an upstream: many at once, each only once, even if the process ends in between."""

from __future__ import annotations

import json
import queue
import re
import threading
import time
from typing import TYPE_CHECKING
from uuid import uuid4

from duckdb_mistral.emulator.switchboard import Switchboard

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from io import FileIO
    from pathlib import Path

    from duckdb_mistral.emulator.upstream import Upstream

#: The beginning of every line of an output or error file; the number is the request's in the job.
LINE_START = re.compile(rb'\{"id": "batch-[0-9a-f]{8}-(\d+)-')
LOOK_SECONDS = 0.2


class Relay:
    """The relay of one job; `succeeded` and `failed` may be read and `stop` may be called at any time."""

    def __init__(self, upstream: Upstream, *, job_id: str, endpoint: str, model: str | None) -> None:
        """Ask `upstream` for the answers; a body without a model is for `model`."""
        self.succeeded = 0
        self.failed = 0
        self._prefix = f"batch-{job_id[:8]}"
        self._endpoint = endpoint
        self._model = model
        self._stopped = threading.Event()
        self._failure: Exception | None = None
        self._switchboard = Switchboard(upstream, self._stopped)
        self._waiting: queue.Queue[tuple[int, bytes] | None] = queue.Queue(maxsize=2 * self._switchboard.lines)
        self._writing = threading.Lock()

    def run(self, inputs: Sequence[Path], output: Path, errors: Path, *, total: int, until: float) -> bool:
        """Append the answers to `output` and the refusals to `errors`; return whether all of them are there.

        Requests already answered in the two files are not sent again. It ends early at the moment `until`, or by
        `stop`. Failures on this side, such as a full disk, are raised.
        """
        is_answered = bytearray(total + 1)
        self.succeeded = _count(output, is_answered)
        self.failed = _count(errors, is_answered)
        with output.open("ab", buffering=0) as good, errors.open("ab", buffering=0) as bad:
            threads = [
                threading.Thread(target=self._work, args=(good, bad), name="emulator-relay")
                for _ in range(self._switchboard.lines)
            ]
            for thread in threads:
                thread.start()
            requests = ((number, line) for number, line in _requests(inputs) if not is_answered[number])
            for request in requests:
                if not self._hand_over(request, until):
                    break
            for _ in threads:
                self._hand_over(None, until)
            for thread in threads:
                self._await(thread, until)
        self._switchboard.close()
        if self._failure is not None:
            raise self._failure
        return self.succeeded + self.failed == total

    def stop(self) -> None:
        """Send nothing more, and hang up on requests under way."""
        self._stopped.set()
        self._switchboard.hang_up()

    def _hand_over(self, request: tuple[int, bytes] | None, until: float) -> bool:
        """Wait for room and give the threads a request, or None if there are no more; return False once stopped."""
        while not self._stopped.is_set():
            try:
                self._waiting.put(request, timeout=LOOK_SECONDS)
            except queue.Full:
                self._stop_at(until)
            else:
                return True
        return False

    def _await(self, thread: threading.Thread, until: float) -> None:
        while thread.is_alive():
            thread.join(LOOK_SECONDS)
            self._stop_at(until)
            if self._stopped.is_set():
                self.stop()  # a thread may have connected since the last time

    def _stop_at(self, until: float) -> None:
        if time.time() >= until:
            self.stop()

    def _work(self, good: FileIO, bad: FileIO) -> None:
        """Send waiting requests until there are no more."""
        try:
            while not self._stopped.is_set():
                try:
                    request = self._waiting.get(timeout=LOOK_SECONDS)
                except queue.Empty:
                    continue
                if request is None:
                    break
                self._ask(*request, good, bad)
        except Exception as error:  # noqa: BLE001  raised by `run`, in its thread
            self._failure = error
            self._stopped.set()

    def _ask(self, number: int, text: bytes, good: FileIO, bad: FileIO) -> None:
        request = json.loads(text)
        body = request["body"]
        body["model"] = body.get("model") or self._model
        body.pop("stream", None)  # the answer is read whole
        answer = self._switchboard.ask(self._endpoint, json.dumps(body).encode())
        if answer is None:
            return
        status, content = answer
        custom_id = request.get("custom_id")
        result = {
            "id": f"{self._prefix}-{number}-{uuid4()}",
            "custom_id": custom_id if custom_id is None or isinstance(custom_id, str) else json.dumps(custom_id),
            "response": {"status_code": status, "body": content},
            "error": None,
        }
        is_good = 200 <= status < 300
        written = (json.dumps(result) + "\n").encode()
        with self._writing:
            _append(good if is_good else bad, written)
            if is_good:
                self.succeeded += 1
            else:
                self.failed += 1


def _append(file: FileIO, data: bytes) -> None:
    """Write all of `data`: an unbuffered file may accept only part of it at once."""
    left = memoryview(data)
    while left:
        left = left[file.write(left) :]


def _requests(inputs: Sequence[Path]) -> Iterator[tuple[int, bytes]]:
    """Yield every request with its number in the job, from 1."""
    number = 0
    for path in inputs:
        with path.open("rb") as file:
            for line in file:
                if line.strip():
                    number += 1
                    yield number, line


def _count(path: Path, is_answered: bytearray) -> int:
    """Mark the requests for which a file has a whole line, cut off an unfinished line, and return their number."""
    count, end = 0, 0
    with path.open("ab+") as file:
        file.seek(0)
        for line in file:
            start = LINE_START.match(line)
            if start is None or not line.endswith(b"\n"):
                break
            is_answered[int(start[1])] = 1
            count += 1
            end += len(line)
        file.truncate(end)
    return count
