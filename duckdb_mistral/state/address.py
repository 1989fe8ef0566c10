"""The address of a ledger on PostgreSQL: what of it may be shown, and keeping the rest out of what the driver says."""

from __future__ import annotations

from urllib.parse import parse_qs, unquote, urlsplit

from duckdb_mistral.runtime.hiding import Hider

HIDDEN = "[password]"
#: The parameters of an address that are as secret as the password before its host.
SECRET = ("password", "sslpassword")


class Address:
    """One address, as the setting `ledger` holds it."""

    def __init__(self, url: str) -> None:
        """Read `url`, which the settings have checked."""
        self.url = url
        parts = urlsplit(url)
        credentials, _, hosts = parts.netloc.rpartition("@")
        query = parse_qs(parts.query, keep_blank_values=True)
        hosts = hosts or ",".join(query.get("host", ["localhost"]))
        database = unquote(parts.path[1:]) or query.get("dbname", [""])[-1]
        #: The hosts and the database, which anybody may see.
        self.shown = f"{hosts}/{database}" if database else hosts
        #: The parameters that the address sets itself.
        self.parameters = frozenset(query)
        password = credentials.partition(":")[2]
        raw = [pair.partition("=")[2] for pair in parts.query.split("&") if pair.partition("=")[0] in SECRET]
        secrets = {url, password, unquote(password), *raw, *map(unquote, raw)} - {""}
        self._hiders = [Hider(secret, HIDDEN) for secret in sorted(secrets, key=len, reverse=True)]

    def __repr__(self) -> str:
        return f"Address({self.shown!r})"

    def hide(self, text: str) -> str:
        """Return a text without the address and its passwords."""
        for hider in self._hiders:
            text = hider.text(text)
        return text
