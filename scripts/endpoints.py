"""Make duckdb_mistral/endpoints.json, the fields of each endpoint's request body, from the OpenAPI text.

Run `python scripts/endpoints.py` after the extract under tests/data has changed; a test compares the two.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
OPENAPI = ROOT / "tests" / "data" / "mistral-openapi-extract.yaml"
TARGET = ROOT / "duckdb_mistral" / "endpoints.json"


def json_types(schema: dict[str, Any], schemas: dict[str, Any]) -> set[str]:
    """Return the JSON types that a value of `schema` may have, 'null' left out."""
    if "$ref" in schema:
        return json_types(schemas[schema["$ref"].rsplit("/", 1)[1]], schemas)
    found: set[str] = set()
    for choice in (*schema.get("anyOf", ()), *schema.get("oneOf", ()), *schema.get("allOf", ())):
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


def endpoints(document: dict[str, Any]) -> dict[str, Any]:
    """Return {endpoint: {fields: {name: [JSON types]}, required: [names]}} for every batchable endpoint."""
    schemas = document["components"]["schemas"]
    table: dict[str, Any] = {}
    for endpoint in schemas["ApiEndpoint"]["enum"]:
        path = document["paths"].get(endpoint)
        if path is None:  # named as batchable, but its body is not described
            table[endpoint] = {"fields": {}, "required": []}
            continue
        schema = resolve(request_schema(path["post"]), schemas)
        table[endpoint] = {
            "fields": {name: sorted(json_types(field, schemas)) for name, field in schema["properties"].items()},
            "required": sorted(schema.get("required", [])),
        }
    return table


def rendered() -> str:
    """Return the text of endpoints.json."""
    document = yaml.safe_load(OPENAPI.read_text(encoding="utf-8"))
    return json.dumps(endpoints(document), indent=1) + "\n"


if __name__ == "__main__":
    TARGET.write_text(rendered(), encoding="utf-8")
