"""A server of the S3 API for tests, started and ended by them: moto's, in a process of its own."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from uuid import uuid4

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KEY, SECRET = "an-access-key-of-the-tests", "a-secret-of-the-tests"


@dataclass(frozen=True)
class ObjectServer:
    """A server that listens at `url`, run by the process `pid`."""

    url: str
    pid: int

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which pyarrow finds the server, and nothing of the developer's own."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def bucket(self) -> str:
        """Make a bucket, and return its name."""
        name = f"bucket-{uuid4().hex}"
        self.filesystem(make=True).create_dir(name)
        return name

    def filesystem(self, *, make: bool = False) -> Any:
        """Return pyarrow's file system of the server, which may make buckets if asked to."""
        from pyarrow import fs

        return fs.S3FileSystem(
            access_key=KEY,
            secret_key=SECRET,
            region="us-east-1",
            scheme="http",
            endpoint_override=urlsplit(self.url).netloc,
            allow_bucket_creation=make,
            allow_bucket_deletion=make,
        )

    @contextmanager
    def silent(self) -> Iterator[None]:
        """Let the server take connections and answer none."""
        os.kill(self.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.pid, signal.SIGCONT)


class Relay:
    """Passes on what a client sends to a server, up to so many bytes, and no answer or byte after that."""

    def __init__(self, url: str, most: int) -> None:
        """Listen at a port of its own, for the server at `url`."""
        parts = urlsplit(url)
        self._target = (str(parts.hostname), parts.port or 0)
        self._left = most
        #: Set once the server has received so many bytes.
        self.is_full = threading.Event()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Take no more connections."""
        self._listening.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                threading.Thread(target=self._pass_on, args=(client,), daemon=True).start()

    def _pass_on(self, client: socket.socket) -> None:
        with suppress(OSError), client, socket.create_connection(self._target) as server:
            while True:
                for ready in select.select([client, server], [], [])[0]:
                    data = ready.recv(1 << 16)
                    if not data:
                        return
                    if self._left <= 0:
                        self.is_full.set()
                        client.recv(1)  # until the client has gone
                        return
                    other = server if ready is client else client
                    other.sendall(data)
                    self._left -= len(data) if ready is client else 0


@contextmanager
def serving() -> Iterator[ObjectServer]:
    """Run a server of its own process until the block ends."""
    port = free_port()
    with listening(["moto.server", "-H", "127.0.0.1", "-p", str(port)], port, package="moto[server]") as pid:
        yield ObjectServer(url=f"http://127.0.0.1:{port}", pid=pid)


@contextmanager
def listening(module: list[str], port: int, *, package: str, directory: Path | None = None) -> Iterator[int]:
    """Run a Python module with its arguments until the block ends; yield the process's id once it listens at a port."""
    process = subprocess.Popen(
        [sys.executable, "-m", *module], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=directory
    )
    try:
        end = time.monotonic() + 60
        while True:
            assert process.poll() is None, f"the server ended at once; is {package} installed?"
            assert time.monotonic() < end, "the server did not start"
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            time.sleep(0.05)
        yield process.pid
    finally:
        process.kill()
        process.wait()


def free_port() -> int:
    """Return a port at which nothing listens."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        return port
