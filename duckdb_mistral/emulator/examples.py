"""Values that a JSON schema allows."""

from __future__ import annotations

from typing import Any

FORMATS = {"date": "2026-01-31", "date-time": "2026-01-31T12:00:00Z", "time": "12:00:00"}
#: A schema that refers to itself is followed to this depth.
DEEPEST = 8


def example_of(schema: Any, root: Any = None, depth: int = 0) -> Any:
    """Return a value that a JSON schema allows, always the same one; null if it is not a schema or never ends."""
    root = schema if root is None else root
    if not isinstance(schema, dict) or depth > DEEPEST:
        return None
    if "$ref" in schema:
        return example_of(_found(root, str(schema["$ref"])), root, depth + 1)
    if "const" in schema:
        return schema["const"]
    for choices in ("enum", "anyOf", "oneOf", "allOf"):
        if schema.get(choices):
            first = schema[choices][0]
            return first if choices == "enum" else example_of(first, root, depth + 1)
    kind = schema.get("type", "object")
    match kind[0] if isinstance(kind, list) else kind:
        case "object":
            fields = schema.get("properties", {})
            return {name: example_of(field, root, depth + 1) for name, field in fields.items()}
        case "array":
            count = max(1, schema.get("minItems", 1))
            return [example_of(schema.get("items", {"type": "string"}), root, depth + 1)] * count
        case "integer":
            return int(_bound(schema, 1))
        case "number":
            return float(_bound(schema, 0.5))
        case "boolean":
            return True
        case "null":
            return None
    return _text(schema)


def _bound(schema: dict[str, Any], otherwise: float) -> Any:
    return schema.get("minimum", schema.get("maximum", otherwise))


def _text(schema: dict[str, Any]) -> str:
    text = FORMATS.get(schema.get("format", ""), "echo")
    return text.ljust(schema.get("minLength", 0), ".")[: schema.get("maxLength")]


def _found(root: Any, reference: str) -> Any:
    """Return what a reference within the schema points to, or None."""
    for step in reference.removeprefix("#").strip("/").split("/"):
        root = root.get(step) if isinstance(root, dict) and step else root
    return root
