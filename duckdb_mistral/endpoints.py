"""What the API's text says of each batchable endpoint: the fields of its request body, and their JSON types."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib import resources

from duckdb_mistral.errors import ArgumentError

CHAT = "/v1/chat/completions"

#: What a source row may say its request with, per endpoint; the first is what most people use.
CONTENT_COLUMNS = {
    CHAT: ("prompt", "messages"),
}
#: Columns of `source` that are no field of a request body.
OWN_COLUMNS = ("custom_id", "prompt", "messages", "system", "body")


@dataclass(frozen=True)
class Endpoint:
    """One endpoint of the enum ApiEndpoint, and the fields of its request body: {name: JSON types}."""

    path: str
    fields: dict[str, frozenset[str]]

    @property
    def content_columns(self) -> tuple[str, ...]:
        """The columns of `source` that can hold the content of a request, besides `body`."""
        return CONTENT_COLUMNS[self.path]

    @property
    def option_fields(self) -> tuple[str, ...]:
        """The fields that a column of the same name fills, in the order of the API's text."""
        return tuple(name for name in self.fields if name not in self.content_columns)


@cache
def all_endpoints() -> dict[str, Endpoint]:
    """Return every endpoint that the API takes batches for, by its path."""
    text = (resources.files("duckdb_mistral") / "endpoints.json").read_text(encoding="utf-8")
    return {
        path: Endpoint(path, {name: frozenset(types) for name, types in entry["fields"].items()})
        for path, entry in json.loads(text).items()
    }


def endpoint_of(path: str) -> Endpoint:
    """Return the endpoint with this path; raise ArgumentError where there is none that can be used."""
    known = all_endpoints()
    if path not in known:
        raise ArgumentError(f"There is no batch endpoint {path!r}; the API has {', '.join(known)}.")
    if path not in CONTENT_COLUMNS:
        raise ArgumentError(
            f"The endpoint {path} cannot be used from SQL yet; {', '.join(CONTENT_COLUMNS)} can. Nothing was sent."
        )
    return known[path]
