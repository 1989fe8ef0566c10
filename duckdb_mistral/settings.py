"""The settings of a connection: from `register()`, or else the environment, or else the default.

No other module of the package reads `os.environ`; the emulator, which shares no code with it, reads its own key.
"""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

from duckdb_mistral.errors import MissingKeyError, SettingError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

DEFAULT_SERVER_URL = "https://api.mistral.ai"
#: The end of an address that says nothing.
_PORTS = {"http": ":80", "https": ":443"}
LONGEST_POLL_SECONDS = 60.0
#: A host of a ledger's address, an IPv6 address in brackets, with or without its port.
_HOST = re.compile(r"(\[[0-9a-fA-F:.%]+\]|[^\[\]:]*)(:\d*)?")
#: The schemes of a store, each with what may follow its `?`: where the store is, and never a credential.
STORES: dict[str, frozenset[str]] = {
    "s3": frozenset({"region", "scheme", "endpoint_override"}),
    "gs": frozenset({"scheme", "endpoint_override"}),
    "abfss": frozenset(),
    "file": frozenset(),
}
_STORE_EXAMPLES = (
    "a store is s3://bucket/prefix, gs://bucket/prefix, abfss://container@account.dfs.core.windows.net/prefix or "
    "file:///directory."
)

ENVIRONMENT = {
    "api_key": "MISTRAL_API_KEY",
    "server_url": "MISTRAL_SERVER_URL",
    "home": "DUCKDB_MISTRAL_HOME",
    "model": "DUCKDB_MISTRAL_MODEL",
    "max_requests_per_job": "DUCKDB_MISTRAL_MAX_REQUESTS_PER_JOB",
    "max_bytes_per_file": "DUCKDB_MISTRAL_MAX_BYTES_PER_FILE",
    "max_pending_requests": "DUCKDB_MISTRAL_MAX_PENDING_REQUESTS",
    "reconcile_seconds": "DUCKDB_MISTRAL_RECONCILE_SECONDS",
    "poll_seconds": "DUCKDB_MISTRAL_POLL_SECONDS",
    "prices": "DUCKDB_MISTRAL_PRICES",
    "deadline_seconds": "DUCKDB_MISTRAL_DEADLINE_SECONDS",
    "ledger": "DUCKDB_MISTRAL_LEDGER",
    "store": "DUCKDB_MISTRAL_STORE",
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of one database's functions; made by `Settings.resolve`.

    The key and the ledger's address are kept out of `repr`. The key is checked only by `required_key`, when a call
    needs it.
    """

    api_key: str | None = field(default=None, repr=False)
    #: The API's address, without a trailing slash.
    server_url: str = DEFAULT_SERVER_URL
    #: The directory of the ledger, the spool and the results.
    home: Path = Path()
    model: str = "mistral-small-latest"
    max_requests_per_job: int = 100_000
    max_bytes_per_file: int = 512_000_000
    #: The most requests in jobs that have not ended, counted across the whole workspace.
    max_pending_requests: int = 1_000_000
    #: How long to look for a job whose create got no answer, from when the create was given up, before it counts as not
    #: accepted; at least `deadline_seconds` if the API was silent. With 0 it is not looked for again.
    reconcile_seconds: float = 60.0
    #: The first interval between two polls; it grows to thirty times that, at most a minute.
    poll_seconds: float = 2.0
    #: A price table that overrides the package's own.
    prices: Path | None = None
    #: How long a read that the API does not answer is repeated, and how long the API may send nothing.
    deadline_seconds: float = 30.0
    #: The address of a ledger on PostgreSQL, which may hold a password; None for an SQLite file under `home`.
    ledger: str | None = field(default=None, repr=False)
    #: The URL of what keeps results for other machines too; `home` is a cache of it then. None: they are under `home`.
    store: str | None = None

    @classmethod
    def resolve(cls, given: Mapping[str, Any], environment: Mapping[str, str] | None = None) -> Settings:
        """Return the settings of `given`, completed from `environment` (the process's own by default).

        Raises SettingError, naming the setting or the variable, if a value cannot be used.
        """
        check_names(given)
        environment = os.environ if environment is None else environment
        values: dict[str, Any] = {}
        for name, variable in ENVIRONMENT.items():
            if given.get(name) is not None:
                values[name] = _converted(name, given[name], f"The setting {name}")
            elif environment.get(variable, "") != "":
                values[name] = _converted(name, environment[variable], f"The environment variable {variable}")
        values.setdefault("home", _default_home())
        return cls(**values)

    def required_key(self) -> str:
        """Return the API key; raise MissingKeyError or SettingError if there is none that can be sent."""
        if not self.api_key:
            raise MissingKeyError
        if not all("!" <= character <= "~" for character in self.api_key):
            raise SettingError(
                "The API key (MISTRAL_API_KEY or api_key) contains a space, a line break or another character "
                "that no key has; it was not sent. Set it again without it."
            )
        return self.api_key


def variable(name: str) -> str | None:
    """Return an environment variable that is not a setting; None if it is empty or not set."""
    return os.environ.get(name) or None


def environment_without(names: Collection[str]) -> dict[str, str]:
    """Return the environment for another program, without these variables."""
    return {name: value for name, value in os.environ.items() if name not in names}


def check_names(given: Mapping[str, Any]) -> None:
    """Raise SettingError for a name that is not a setting."""
    known = [setting.name for setting in fields(Settings)]
    for name in given:
        if name not in known:
            raise SettingError(f"There is no setting {name}; the settings are {', '.join(known)}.")


def _default_home() -> Path:
    """Return the platform's user data directory for this package."""
    import platformdirs

    return Path(platformdirs.user_data_dir("duckdb_mistral", appauthor=False))


def _converted(name: str, value: Any, what: str) -> Any:
    """Return `value` converted for the setting `name`, or raise SettingError with a message about `what`."""
    match name:
        case "api_key":
            return str(value)
        case "server_url":
            return _server_url(str(value), what)
        case "home" | "prices":
            if not isinstance(value, str | os.PathLike) or not str(value):
                raise SettingError(f"{what} must be a path, but is {value!r}.")
            return Path(value).expanduser().absolute()
        case "model":
            if not isinstance(value, str) or not value.strip():
                raise SettingError(
                    f"{what} must be the name of one model, but is {value!r}. Several can be named in a call of "
                    "mistral_batch_submit: model := ['…', '…']."
                )
            return value
        case "reconcile_seconds" | "poll_seconds" | "deadline_seconds":
            return _seconds(name, value, what)
        case "ledger":
            return _ledger(str(value), what)
        case "store":
            return _store(str(value), what)
    return _count(value, what)


def _count(value: Any, what: str) -> int:
    try:
        number = int(value)
    except (TypeError, ValueError):
        number = 0
    if number < 1 or isinstance(value, bool):
        raise SettingError(f"{what} must be a whole number of at least 1, but is {value!r}.")
    return number


def _seconds(name: str, value: Any, what: str) -> float:
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        seconds = math.nan
    lowest = 0.0 if name == "reconcile_seconds" else 0.001
    if not lowest <= seconds < math.inf:
        raise SettingError(f"{what} must be a number of seconds of at least {lowest:g}, but is {value!r}.")
    return seconds


def _server_url(value: str, what: str) -> str:
    """Check an address: https anywhere, http only on this machine, where nobody can intercept the key."""
    parts = urlsplit(value)
    try:
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host or parts.scheme not in {"http", "https"} or parts.query or parts.fragment or "@" in parts.netloc:
        raise SettingError(f"{what} must be an address such as {DEFAULT_SERVER_URL}, but is {value!r}.")
    if parts.scheme == "http" and not is_loopback(host):
        raise SettingError(
            f"{what} is {value!r}: plain http would show the API key to the network, so it is only "
            "allowed to this machine (127.0.0.1 or localhost). Use https."
        )
    # One address has one spelling, since it is part of what makes two submissions the same. Every path begins with /v1.
    written = f"{parts.scheme}://{parts.netloc.lower().removesuffix(_PORTS[parts.scheme])}{parts.path}"
    return written.rstrip("/").removesuffix("/v1").rstrip("/")


def _ledger(value: str, what: str) -> str:
    """Check the address of a ledger. A refusal does not repeat it: even a wrong one may hold a password."""
    scheme, _, rest = value.partition("://")
    credentials, found, address = rest.rpartition("@")
    # The driver takes other characters of a password for a host or a database, and names these in its errors.
    is_plain = not set(credentials) & set("/?#@") and "#" not in rest
    if scheme not in {"postgresql", "postgres"} or not is_plain or not all(map(str.isprintable, value)):
        raise SettingError(
            f"{what} must be an address such as postgresql://user:password@host/database, in which /, ?, # and @ of a "
            "password are written %2F, %3F, %23 and %40. It is not shown here, as it may hold a password."
        )
    hosts = address.partition("?")[0].partition("/")[0]
    if (found and not hosts) or not all(_HOST.fullmatch(host) for host in hosts.split(",") if host):
        raise SettingError(
            f"{what} names no host that can be asked: it must be an address such as "
            "postgresql://user:password@host:5432/database. It is not shown here, as it may hold a password."
        )
    return value


def _store(value: str, what: str) -> str:
    """Check the URL of a store; one that may hold a credential is not repeated."""
    try:
        parts = urlsplit(value)
        given = {name for name, _ in parse_qsl(parts.query, keep_blank_values=True)}
        # An address of Azure is container@account.
        user, password = (None, parts.password) if parts.scheme == "abfss" else (parts.username, parts.password)
    except ValueError:
        told = "" if "@" in value or "?" in value else f", but is {value!r}"
        raise SettingError(f"{what} must be the absolute URL of a store{told}; {_STORE_EXAMPLES}") from None
    if user is not None or password is not None or not given <= STORES.get(parts.scheme, given):
        raise SettingError(
            f"{what} has more in it than where the store is. Credentials are not taken from it, but from the "
            f"environment, as pyarrow has them (AWS_ACCESS_KEY_ID …); {_STORE_EXAMPLES}"
        )
    is_path = not parts.netloc and parts.path.startswith("/") and parts.path.strip("/")
    names_it = is_path if parts.scheme == "file" else parts.hostname
    if parts.scheme not in STORES or not names_it or parts.fragment:
        raise SettingError(f"{what} must be the absolute URL of a store, but is {value!r}; {_STORE_EXAMPLES}")
    query = f"?{parts.query}" if parts.query else ""
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}{query}"


def is_loopback(host: str) -> bool:
    """Tell whether a host name or address is this machine."""
    import ipaddress

    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
