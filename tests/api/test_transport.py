"""The HTTP client: what the environment says of proxies and certificates, where that cannot be used."""

from __future__ import annotations

import os
import sys

import pytest

from duckdb_mistral.api.transport import Transport
from duckdb_mistral.errors import SettingError

PASSWORD = "pa55word"


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep what this machine itself says of proxies and certificates out of these tests."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name.startswith("SSL_CERT_"):
            monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({"ALL_PROXY": "socks4://127.0.0.1:1"}, "Unknown scheme for proxy URL"),
        ({"HTTPS_PROXY": "ftp://x"}, "Unknown scheme for proxy URL"),
        ({"HTTPS_PROXY": f"ftp://user:{PASSWORD}@x"}, "ValueError"),
        ({"HTTPS_PROXY": f"http://user:{PASSWORD}/1@x"}, "InvalidURL"),
        ({"HTTPS_PROXY": f"http://user:{PASSWORD}@x", "SSL_CERT_FILE": "/none.pem"}, "No such file or directory"),
        ({"SSL_CERT_FILE": os.devnull}, ""),
    ],
)
def test_environment_that_cannot_be_used(
    environment: dict[str, str], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the environment names and cannot be used is told by the variables' names, without a proxy's password."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingError, match=r"SSL_CERT_FILE.* cannot be used: .* and run the statement again") as caught:
        Transport("https://example.com", 1)
    assert reason in str(caught.value)
    assert PASSWORD not in str(caught.value)
    Transport("http://127.0.0.1:1", 1).close()  # this machine's own server is asked without any of it


def test_socks_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """A SOCKS proxy whose package is not installed is told with the package's name."""
    monkeypatch.setitem(sys.modules, "socksio", None)
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:1")
    with pytest.raises(SettingError, match=r"cannot be used: .*'socksio' package is not installed"):
        Transport("https://example.com", 1)
