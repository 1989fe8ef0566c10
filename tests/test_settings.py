"""The settings: given, else of the environment, else the default; checked by name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from duckdb_mistral.errors import MissingKeyError, SettingError
from duckdb_mistral.settings import ENVIRONMENT, Settings, is_loopback

DEFAULTS = {
    "api_key": None,
    "server_url": "https://api.mistral.ai",
    "model": "mistral-small-latest",
    "max_requests_per_job": 100_000,
    "max_bytes_per_file": 512_000_000,
    "max_pending_requests": 1_000_000,
    "reconcile_seconds": 60.0,
    "poll_seconds": 2.0,
    "prices": None,
    "deadline_seconds": 30.0,
    "ledger": None,
    "store": None,
}
OTHERS = {
    "api_key": "key",
    "server_url": "https://example.com",
    "home": "/somewhere",
    "model": "ministral-8b-latest",
    "max_requests_per_job": "7",
    "max_bytes_per_file": "8",
    "max_pending_requests": "9",
    "reconcile_seconds": "0",
    "poll_seconds": "0.5",
    "prices": "/prices.json",
    "deadline_seconds": "1.5",
    "ledger": "postgresql://me:secret@example.com/team",
    "store": "s3://bucket/prefix/",
}
READ = OTHERS | {
    "home": Path("/somewhere"),
    "max_requests_per_job": 7,
    "max_bytes_per_file": 8,
    "max_pending_requests": 9,
    "reconcile_seconds": 0.0,
    "poll_seconds": 0.5,
    "prices": Path("/prices.json"),
    "deadline_seconds": 1.5,
    "store": "s3://bucket/prefix",
}


def test_defaults() -> None:
    """Without anything given the settings are the contract's defaults, and home is the platform's."""
    settings = Settings.resolve({}, {})
    assert {name: getattr(settings, name) for name in DEFAULTS} == DEFAULTS
    assert "duckdb_mistral" in settings.home.parts[-1]
    assert settings.home.is_absolute()


def test_variables_of_the_contract() -> None:
    """Each setting has the contract's environment variable."""
    assert {name: variable for name, variable in ENVIRONMENT.items() if name not in ("api_key", "server_url")} == {
        name: f"DUCKDB_MISTRAL_{name.upper()}" for name in (*DEFAULTS, "home") if name not in ("api_key", "server_url")
    }
    assert (ENVIRONMENT["api_key"], ENVIRONMENT["server_url"]) == ("MISTRAL_API_KEY", "MISTRAL_SERVER_URL")


@pytest.mark.parametrize("name", OTHERS)
def test_given_beats_environment_beats_default(name: str) -> None:
    """What is given wins over the environment, and that over the default; empty counts as not set."""
    variable = {ENVIRONMENT[name]: OTHERS[name]}
    assert getattr(Settings.resolve({}, variable), name) == READ[name]
    assert getattr(Settings.resolve({name: OTHERS[name]}, {ENVIRONMENT[name]: "1"}), name) == READ[name]
    assert Settings.resolve({name: None}, {ENVIRONMENT[name]: ""}) == Settings.resolve({}, {})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("max_requests_per_job", value) for value in (0, -1, "x", "1.5", True)),
        *(("poll_seconds", value) for value in (0, -1, "x", "nan", "inf")),
        *(("deadline_seconds", value) for value in (0, -1, "x", "nan", "inf")),
        *(("reconcile_seconds", value) for value in (-1, "x", "nan", "inf")),
        *(("server_url", value) for value in ("x", "ftp://a", "https://", "https://a?b", "https://a#b", "https://u@a")),
        *(("store", value) for value in ("s3a://b/p", "http://b", "bucket/prefix", "s3:///prefix", "s3://")),
        *(("store", value) for value in ("file://results", "file:results", "file:///", "gs://b/p#x", "s3://[b/p")),
        *(("server_url", value) for value in ("http://a", "http://10.0.0.1", "http://localhost.a", "https://a:b")),
    ],
)
def test_refused(name: str, value: Any) -> None:
    """A value that cannot be used is refused, by the name of the setting or of the variable, with the value."""
    with pytest.raises(SettingError, match=re.escape(f"The setting {name} ")) as caught:
        Settings.resolve({name: value}, {})
    assert repr(value) in str(caught.value)
    with pytest.raises(SettingError, match=ENVIRONMENT[name]):
        Settings.resolve({}, {ENVIRONMENT[name]: str(value) if value is not True else "x"})


@pytest.mark.parametrize(
    ("name", "value"),
    [("home", ""), ("home", 5), ("prices", {}), ("model", ["a", "b"]), ("model", " ")],
)
def test_values_of_another_kind(name: str, value: Any) -> None:
    """What is no path, or not the name of one model, is refused, and not taken for its text."""
    with pytest.raises(SettingError, match=re.escape(f"The setting {name} must be ") + ".*" + re.escape(repr(value))):
        Settings.resolve({name: value}, {"DUCKDB_MISTRAL_HOME": "/somewhere"})


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("https://api.mistral.ai/", "https://api.mistral.ai"),
        ("https://proxy.example/mistral/", "https://proxy.example/mistral"),
        ("https://api.mistral.ai/v1", "https://api.mistral.ai"),
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("http://localhost:8000/", "http://localhost:8000"),
        ("http://[::1]:8000", "http://[::1]:8000"),
        ("HTTP://[::1]:80/v1", "http://[::1]"),
        ("https://API.Mistral.AI:443/", "https://api.mistral.ai"),
        ("https://gateway.example:8443/Team", "https://gateway.example:8443/Team"),
    ],
)
def test_addresses(given: str, kept: str) -> None:
    """An https address is taken from anywhere, an http one from this machine, each in one spelling."""
    assert Settings.resolve({"server_url": given}, {}).server_url == kept


@pytest.mark.parametrize(
    "url",
    [
        "s3://canary:canary@bucket/prefix",
        "s3://canary@bucket/prefix",
        "s3://bucket/prefix?access_key=canary&secret_key=canary",
        "s3://bucket/prefix?canary",
        "gs://canary@bucket",
        "abfss://container:canary@account.dfs.core.windows.net/prefix",
        "abfss://container@account.dfs.core.windows.net/prefix?sig=canary",
        "file:///results?canary",
    ],
)
def test_credentials_of_a_store(url: str) -> None:
    """A store whose URL may hold a credential is refused, and the URL is not repeated."""
    with pytest.raises(SettingError, match="Credentials are not taken from it, but from the environment") as caught:
        Settings.resolve({"store": url}, {})
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("s3://bucket", "s3://bucket"),
        ("s3://bucket/a b/", "s3://bucket/a b"),
        ("s3://bucket/p?region=eu-west-3&endpoint_override=localhost:9000", None),
        ("gs://bucket/prefix", None),
        ("abfss://container@account.dfs.core.windows.net/prefix", None),
        ("file:///srv/results/", "file:///srv/results"),
    ],
)
def test_stores(given: str, kept: str | None) -> None:
    """A store is the URL of a bucket, a container or a directory, without a slash at the end."""
    assert Settings.resolve({"store": given}, {}).store == (kept or given)


def test_is_loopback() -> None:
    """Only this machine's own names and addresses are loopback."""
    assert all(map(is_loopback, ("127.0.0.1", "127.8.8.8", "::1", "localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "10.0.0.1", "localhost.example", "", "127.0.0.1.example")))  # noqa: S104


def test_unknown_setting() -> None:
    """A name that is no setting is refused with the names that are."""
    with pytest.raises(SettingError, match="There is no setting key; the settings are api_key, server_url"):
        Settings.resolve({"key": "x"}, {})


def test_home_of_a_user() -> None:
    """A tilde in home is the user's directory, and a relative path is made absolute."""
    assert Settings.resolve({"home": "~/x"}, {}).home == Path.home() / "x"
    assert Settings.resolve({"home": "x"}, {}).home == Path.cwd() / "x"


def test_key() -> None:
    """The key is kept out of repr, asked for only when needed, and refused where no header can hold it."""
    settings = Settings.resolve({"api_key": "canary"}, {})
    assert "canary" not in repr(settings)
    assert settings.required_key() == "canary"
    with pytest.raises(MissingKeyError, match="MISTRAL_API_KEY"):
        Settings.resolve({}, {}).required_key()
    for bad in ("canary\n", "canary canary", "canary\x00", "canaré"):
        with pytest.raises(SettingError) as caught:
            Settings.resolve({"api_key": bad}, {}).required_key()
        assert "canar" not in str(caught.value)


@pytest.mark.parametrize(
    "ledger",
    [
        "postgres://example.com",
        "postgresql://me:canary@[::1]:5433/team?sslmode=require",
        "postgresql://me:can%40ry@one:5432,two/team?target_session_attrs=read-write",
        "postgresql:///team?host=/tmp&password=canary",
    ],
)
def test_addresses_of_a_ledger(ledger: str) -> None:
    """An address of PostgreSQL is taken as it is, and kept out of repr."""
    settings = Settings.resolve({"ledger": ledger}, {})
    assert settings.ledger == ledger
    assert "canary" not in repr(settings)
    assert "example" not in repr(settings)


@pytest.mark.parametrize(
    "ledger",
    [
        "canary",
        "mysql://me:canary@example.com/team",
        "sqlite:////canary/ledger.sqlite",
        "postgresql+psycopg://me:canary@example.com/team",
        "postgresql://me:ca@nary@example.com/team",
        "postgresql://me:can/ary@example.com/team",
        "postgresql://me:can?ary@example.com/team",
        "postgresql://me:canary#@example.com/team",
        "postgresql://me:canary@/team",
        "postgresql://me:canary@example.com:port/team",
        "postgresql://me:canary",
        "postgresql://me:canary@example.com/te\nam",
    ],
)
def test_refused_ledger(ledger: str) -> None:
    """What is no address of PostgreSQL is refused by the setting's name, and without a word of it."""
    for given, environment in (({"ledger": ledger}, {}), ({}, {"DUCKDB_MISTRAL_LEDGER": ledger})):
        with pytest.raises(
            SettingError, match=r"(setting ledger|DUCKDB_MISTRAL_LEDGER) .*postgresql://user:"
        ) as caught:
            Settings.resolve(given, environment)
        assert "nary" not in str(caught.value)
        assert "example.com" not in str(caught.value)
