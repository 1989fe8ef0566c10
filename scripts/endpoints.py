"""Make duckdb_mistral/api/endpoints.json, the fields of each endpoint's request body, from the OpenAPI text.

Run `python scripts/endpoints.py` after the extract under tests/data has changed, or a new SDK is out; a test compares
the two. The extract names /v1/conversations as batchable without describing its body: that comes from the SDK's model,
which is made from the same document. What the SDK's models have besides is newer than the extract, and goes into
duckdb_mistral/api/added_fields.json.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from duckdb_mistral.api.sdk_fields import REQUEST_MODELS

ROOT = Path(__file__).resolve().parent.parent
OPENAPI = ROOT / "tests" / "data" / "mistral-openapi-extract.yaml"
TARGET = ROOT / "duckdb_mistral" / "api" / "endpoints.json"
ADDED = ROOT / "duckdb_mistral" / "api" / "added_fields.json"
#: The SDK's models of the request bodies.
SDK_MODELS = {path: model for path, (_, model) in REQUEST_MODELS.items()}

#: How the SDK's models say that a field may be left out.
UNSET = "#/$defs/Unset"


def json_types(schema: dict[str, Any], schemas: dict[str, Any]) -> set[str]:
    """Return the JSON types that a value of `schema` may have, 'null' left out."""
    if "$ref" in schema:
        return json_types(schemas[schema["$ref"].rsplit("/", 1)[1]], schemas)
    found: set[str] = set()
    for choice in (*schema.get("anyOf", ()), *schema.get("oneOf", ()), *schema.get("allOf", ())):
        if choice.get("$ref") == UNSET:
            continue
        found |= json_types(choice, schemas)
    if isinstance(schema.get("type"), str):
        found.add(schema["type"])
    return found - {"null"}


def request_schema(operation: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of an operation's request body: JSON where it takes JSON, else the form's."""
    content = operation["requestBody"]["content"]
    body = content.get("application/json") or next(iter(content.values()))
    schema: dict[str, Any] = body["schema"]
    return schema


def resolve(schema: dict[str, Any], schemas: dict[str, Any]) -> dict[str, Any]:
    """Follow a schema's reference, if it is one."""
    return schemas[schema["$ref"].rsplit("/", 1)[1]] if "$ref" in schema else schema


def described(schema: dict[str, Any], schemas: dict[str, Any]) -> dict[str, Any]:
    """Return {fields: {name: [JSON types]}, required: [names]} of a request body."""
    return {
        "fields": {name: sorted(json_types(field, schemas)) for name, field in schema["properties"].items()},
        "required": sorted(schema.get("required", [])),
    }


def sdk_schema(name: str) -> dict[str, Any]:
    """Return the JSON schema of one of the SDK's models."""
    from mistralai.client import models

    schema: dict[str, Any] = getattr(models, name).model_json_schema()
    return schema


def from_extract(document: dict[str, Any]) -> dict[str, Any]:
    """Return {endpoint: its description} for every batchable endpoint, None where the extract has none."""
    schemas = document["components"]["schemas"]
    paths = document["paths"]
    return {
        endpoint: described(resolve(request_schema(paths[endpoint]["post"]), schemas), schemas)
        if endpoint in paths
        else None
        for endpoint in schemas["ApiEndpoint"]["enum"]
    }


def endpoints(document: dict[str, Any]) -> dict[str, Any]:
    """Return {endpoint: its description} for every batchable endpoint."""
    table = from_extract(document)
    for endpoint, model in SDK_MODELS.items():
        if table[endpoint] is None:
            schema = sdk_schema(model)
            table[endpoint] = described(schema, schema["$defs"])
    return table


def added_fields(table: dict[str, Any]) -> dict[str, Any]:
    """Return {endpoint: {field: [JSON types]}} of what the SDK's models have besides a table's fields."""
    found = {}
    for endpoint, model in SDK_MODELS.items():
        schema = sdk_schema(model)
        fields = described(schema, schema["$defs"])["fields"]
        found[endpoint] = {name: types for name, types in fields.items() if name not in table[endpoint]["fields"]}
    return {endpoint: fields for endpoint, fields in found.items() if fields}


def rendered() -> dict[Path, str]:
    """Return the text of each file that is made."""
    document = yaml.safe_load(OPENAPI.read_text(encoding="utf-8"))
    table = endpoints(document)
    made = {TARGET: table, ADDED: added_fields(table)}
    return {path: json.dumps(content, indent=1) + "\n" for path, content in made.items()}


if __name__ == "__main__":
    for path, text in rendered().items():
        path.write_text(text, encoding="utf-8")
