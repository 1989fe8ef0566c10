"""A server of Google's storage API for tests, started and ended by them, in a process of its own."""

from __future__ import annotations

import json
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from typing import TYPE_CHECKING
from uuid import uuid4

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from object_server import free_port, listening

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@dataclass(frozen=True)
class GoogleServer:
    """A server that listens at `host`, for the account whose key lies in the file `credentials`."""

    host: str
    credentials: Path

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which pyarrow has its credentials."""
        return {"GOOGLE_APPLICATION_CREDENTIALS": str(self.credentials)}

    def url(self, bucket: str) -> str:
        """Return the URL of a store in a bucket."""
        return f"gs://{bucket}/prefix?scheme=http&endpoint_override={self.host}"

    def bucket(self) -> str:
        """Make a bucket, and return its name."""
        name = f"bucket-{uuid4().hex}"
        headers = {"Content-Type": "application/json"}
        with closing(HTTPConnection(self.host, timeout=30)) as connection:
            connection.request("POST", "/storage/v1/b?project=tests", json.dumps({"name": name}), headers)
            assert connection.getresponse().status == 200
        return name


@contextmanager
def serving(directory: Path) -> Iterator[GoogleServer]:
    """Run a server of its own process until the block ends; what it needs lies in a directory."""
    port = free_port()
    module = ["gcp_storage_emulator", "start", "--host=127.0.0.1", f"--port={port}", "--in-memory"]
    with listening(module, port, package="gcp-storage-emulator", directory=directory):
        yield GoogleServer(host=f"127.0.0.1:{port}", credentials=_credentials(directory / "account.json"))


def _credentials(path: Path) -> Path:
    """Write the key of an account, with which requests are signed without asking anybody."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    account = {
        "type": "service_account",
        "project_id": "tests",
        "private_key_id": "a-key",
        "private_key": pem.decode(),
        "client_email": "tests@tests.iam.gserviceaccount.com",
        "client_id": "1",
        "token_uri": "http://127.0.0.1:1/token",
    }
    path.write_text(json.dumps(account))
    return path
