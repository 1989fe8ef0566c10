"""The content of a request body: the members that a row's prompt, messages, input or document becomes."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from duckdb_mistral.api import endpoints
from duckdb_mistral.duck.quoting import identifier, literal

if TYPE_CHECKING:
    from duckdb_mistral.api.endpoints import Endpoint

# A value as JSON text; DuckDB 1.5's to_json treats a VARIANT as text.
ANY_JSON = "CASE WHEN typeof(:x) = 'VARIANT' THEN :x::JSON ELSE to_json(:x) END"
# Text in a column is JSON if the field takes no strings; text that is not JSON becomes NULL, and the check of the rows
# reports it.
_JSON_ONLY = f"CASE WHEN typeof(:x) = 'VARCHAR' THEN to_json(TRY_CAST(:x::VARCHAR AS JSON)) ELSE {ANY_JSON} END"
_STRING_OR_OBJECT = (
    "CASE WHEN typeof(:x) = 'VARCHAR' AND starts_with(:x::VARCHAR, '{') AND json_valid(:x::VARCHAR) "
    f"THEN to_json(TRY_CAST(:x::VARCHAR AS JSON)) ELSE {ANY_JSON} END"
)
_STRING = "CASE WHEN typeof(:x) = 'JSON' THEN to_json(:x) ELSE to_json(:x::VARCHAR) END"
_STRING_OR_LIST = (
    "CASE WHEN typeof(:x) IN ('JSON', 'VARIANT') OR regexp_matches(typeof(:x), '\\]$|^(STRUCT|MAP|UNION)\\(') "
    f"THEN {ANY_JSON} ELSE to_json(:x::VARCHAR) END"
)
# A system message before a prompt, or before messages. These are the arguments of one concat, so that the prompt is
# copied once; if there are messages, the prompt is NULL.
_MESSAGES = (
    """CASE WHEN messages IS NULL
      THEN concat('[', "||"("||"('{"role":"system","content":', :system), '},'),
        '{"role":"user","content":')
    WHEN :system IS NULL THEN :messages
    ELSE concat('[{"role":"system","content":', :system, '},', substr(:messages, 2)) END""",
    # What -> extracts from JSON is a JSON string, which stands for its text.
    (
        "CASE WHEN typeof(prompt) = 'JSON' AND json_type(to_json(prompt)) = 'VARCHAR' THEN to_json(prompt) "
        "ELSE to_json(prompt::VARCHAR) END"
    ),
    "CASE WHEN messages IS NULL THEN '}]' END",
)
# Text that is not a JSON object is the address of a document, or of an image if it looks like one.
_DOCUMENT = (
    "CASE WHEN typeof(:x) <> 'VARCHAR' OR (starts_with(:x::VARCHAR, '{') AND json_valid(:x::VARCHAR)) THEN :json "
    "WHEN regexp_matches(:x::VARCHAR, '^data:image/|\\.(png|jpe?g|gif|webp|avif|bmp|tiff?)([?#].*)?$', 'i') "
    'THEN concat(\'{"type":"image_url","image_url":\', to_json(:x::VARCHAR), \'}\') '
    'ELSE concat(\'{"type":"document_url","document_url":\', to_json(:x::VARCHAR), \'}\') END'
)


def content_members(endpoint: Endpoint, system: str | None) -> dict[str, tuple[str, ...]]:
    """Return {member of the body: SQL of its JSON text} for the members that a row's content columns fill.

    The SQL is NULL if the row's columns leave that member out. A member with several texts, which concat joins, is
    the endpoint's only one. `system` is the system message for every row without its own.
    """
    said = _system(system)
    match endpoint.path:
        case endpoints.CHAT:
            return {"messages": _messages(said)}
        case endpoints.CHAT_MODERATIONS:
            messages = f"concat({', '.join(_messages(said))})"
            return {"input": (f"CASE WHEN input IS NULL THEN {messages} ELSE {json_text('input')} END",)}
        case endpoints.CHAT_CLASSIFICATIONS:
            wrapped = f"concat('{{\"messages\":', {', '.join(_messages(said))}, '}}')"
            return {"input": (f"CASE WHEN input IS NULL THEN {wrapped} ELSE {json_text('input')} END",)}
        case endpoints.CONVERSATIONS:
            inputs = value(endpoint, "inputs")
            return {
                "inputs": (f"coalesce({inputs}, {json_text('messages')}, to_json(prompt::VARCHAR))",),
                "instructions": (f"coalesce({value(endpoint, 'instructions')}, {said})",),
            }
        case endpoints.OCR:
            document = filled(_DOCUMENT.replace(":json", json_text("document")), "document")
            return {"document": (f"CASE WHEN document IS NOT NULL THEN {document} END",)}
    return {name: (value(endpoint, name),) for name in endpoint.content_columns}


def value(endpoint: Endpoint, name: str) -> str:
    """Return the SQL of a column's value as JSON text, of a type that the body field of that name takes."""
    types = endpoint.fields[name]
    if "string" not in types:
        return json_text(name)
    if types == {"string"}:
        return filled(_STRING, name)
    if types == {"array", "string"}:
        return filled(_STRING_OR_LIST, name)
    return filled(_STRING_OR_OBJECT if "object" in types else ANY_JSON, name)


def json_text(name: str) -> str:
    """Return the SQL of a column as JSON text; text in it counts as JSON."""
    return filled(_JSON_ONLY, name)


@cache
def filled(snippet: str, name: str) -> str:
    """Return `snippet` with the column `name` in place of :x, which its own text never contains."""
    return snippet.replace(":x", identifier(name))


def _system(system: str | None) -> str:
    """Return the SQL of a row's system message as JSON text: its own, or else the one for every row."""
    return "to_json(system::VARCHAR)" if system is None else f"to_json(coalesce(system::VARCHAR, {literal(system)}))"


def _messages(system: str) -> tuple[str, ...]:
    messages = f"({json_text('messages')})::VARCHAR"
    # The system message is the caller's text, which may contain a placeholder, so it is filled in last.
    return tuple(text.replace(":messages", messages).replace(":system", system) for text in _MESSAGES)
