"""The content of a request body: the members that a row's prompt, messages, input or document becomes."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from duckdb_mistral.api import endpoints
from duckdb_mistral.duck.quoting import identifier, literal

if TYPE_CHECKING:
    from duckdb_mistral.api.endpoints import Endpoint

# A value as JSON text; DuckDB 1.5's to_json treats a VARIANT as text.
_ANY_JSON = "CASE WHEN typeof(:x) = 'VARIANT' THEN :x::JSON ELSE to_json(:x) END"
#: A value as JSON, NULL for text that is none: a cast reads text, and writes a value of any other type as to_json does.
READ_AS_JSON = "TRY_CAST(:x AS JSON)"
_STRING_OF_JSON = '"(?:[^"\\\\]|\\\\.)*"'
# The same, without the fields of STRUCTs that are NULL: all STRUCTs of a list have the same fields, so a part of a
# message that is a text has the image of its neighbour too. JSON that the caller has written stays as it is.
_WITHOUT_NULLS = (
    "CASE WHEN contains(typeof(:x), 'STRUCT(') AND NOT contains(typeof(:x), 'JSON') "
    "AND contains(to_json(:x)::VARCHAR, ':null') THEN regexp_replace(to_json(:x)::VARCHAR, "
    f"',{_STRING_OF_JSON}:null|{_STRING_OF_JSON}:null,?|({_STRING_OF_JSON})', '\\1', 'g')::JSON "
    f"ELSE {_ANY_JSON} END"
)
# Text in a column is JSON if the field takes no strings; text that is not JSON becomes NULL, and the check of the rows
# reports it.
_JSON_ONLY = f"to_json({READ_AS_JSON})"
_STRUCTS_ONLY = f"CASE WHEN typeof(:x) = 'VARCHAR' THEN {_JSON_ONLY} ELSE {_WITHOUT_NULLS} END"
# A whole number is the same request whatever its type: pandas makes DOUBLE of integers if one is missing.
_INTEGER = f"regexp_replace({_JSON_ONLY}::VARCHAR, '[.]0$', '')"
_STRING_OR_OBJECT = (
    "CASE WHEN typeof(:x) = 'VARCHAR' AND starts_with(:x::VARCHAR, '{') AND json_valid(:x::VARCHAR) "
    "THEN to_json(TRY_CAST(:x::VARCHAR AS JSON)) ELSE :any END"
)
_NO_NUMBER = "typeof(:x) IN ('FLOAT', 'DOUBLE') AND :x::VARCHAR IN ('nan', '-nan', 'inf', '-inf')"
_STRING = "CASE WHEN typeof(:x) = 'JSON' THEN to_json(:x) ELSE to_json(:x::VARCHAR) END"
_STRING_OR_LIST = (
    "CASE WHEN typeof(:x) IN ('JSON', 'VARIANT') OR regexp_matches(typeof(:x), '\\]$|^(STRUCT|MAP|UNION)\\(') "
    "THEN :any ELSE to_json(:x::VARCHAR) END"
)
# What -> extracts from JSON is a JSON string, which stands for its text.
_IS_STRING = "typeof(:x) = 'JSON' AND json_type(to_json(:x)) = 'VARCHAR'"
_TEXT = f"CASE WHEN {_IS_STRING} THEN to_json(:x) ELSE to_json(:x::VARCHAR) END"
# A list of parts, such as a text and an image, is the content of a message as it is.
_PROMPT = (
    "CASE WHEN regexp_matches(typeof(:x), '^STRUCT\\(([^()]*, )?\"?type\"? .*\\)\\[\\d*\\]$') "
    f"THEN {_WITHOUT_NULLS} ELSE {_TEXT} END"
)
# A system message before a prompt, or before messages. These are the arguments of one concat, so that the prompt is
# copied once; if there are messages, the prompt is NULL.
_MESSAGES = (
    """CASE WHEN messages IS NULL
      THEN concat('[', "||"("||"('{"role":"system","content":', :system), '},'),
        '{"role":"user","content":')
    WHEN :system IS NULL THEN :messages
    ELSE concat('[{"role":"system","content":', :system, '},', substr(:messages, 2)) END""",
    _PROMPT.replace(":x", "prompt"),
    "CASE WHEN messages IS NULL THEN '}]' END",
)
# Text that is not a JSON object is the address of a document, or of an image if it looks like one.
_ADDRESS = (
    f"CASE WHEN {_IS_STRING} THEN json_extract_string(to_json(:x), '$') WHEN typeof(:x) = 'VARCHAR' "
    "AND NOT (starts_with(:x::VARCHAR, '{') AND json_valid(:x::VARCHAR)) THEN :x::VARCHAR END"
)
_DOCUMENT = (
    f"CASE WHEN {_ADDRESS} IS NULL THEN :json "
    f"WHEN regexp_matches({_ADDRESS}, '^data:image/|\\.(png|jpe?g|gif|webp|avif|bmp|tiff?)([?#].*)?$', 'i') "
    f'THEN concat(\'{{"type":"image_url","image_url":\', to_json({_ADDRESS}), \'}}\') '
    f'ELSE concat(\'{{"type":"document_url","document_url":\', to_json({_ADDRESS}), \'}}\') END'
)


def given(name: str) -> str:
    """Return the SQL of a content column as the request takes it: a JSON null counts as NULL."""
    if name == "system":
        text = "CASE WHEN typeof(:x) = 'JSON' THEN json_extract_string(to_json(:x), '$') ELSE :x::VARCHAR END"
        return filled(text, name)
    return filled("CASE WHEN typeof(:x) = 'JSON' AND json_type(to_json(:x)) = 'NULL' THEN NULL ELSE :x END", name)


#: The fields that people write as a list of STRUCTs.
STRUCTS = ("messages", "tools", "inputs", "document")


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
                "inputs": (f"coalesce({inputs}, {json_text('messages')}, {filled(_TEXT, 'prompt')})",),
                "instructions": (f"coalesce({value(endpoint, 'instructions')}, {said})",),
            }
        case endpoints.OCR:
            document = filled(_DOCUMENT.replace(":json", json_text("document")), "document")
            return {"document": (f"CASE WHEN document IS NOT NULL THEN {document} END",)}
    return {name: (value(endpoint, name),) for name in endpoint.content_columns}


def value(endpoint: Endpoint, name: str) -> str:
    """Return the SQL of a column's value as JSON text, of a type that the body field of that name takes."""
    types = endpoint.fields[name]
    any_json = _WITHOUT_NULLS if name in STRUCTS else _ANY_JSON
    if types == {"integer"}:
        snippet = _INTEGER
    elif "string" not in types:
        snippet = _STRUCTS_ONLY if name in STRUCTS else _JSON_ONLY
    elif types == {"string"}:
        snippet = _STRING
    elif types == {"array", "string"}:
        snippet = _STRING_OR_LIST
    else:
        snippet = _STRING_OR_OBJECT if "object" in types else ":any"
    return filled(snippet.replace(":any", any_json), name)


def json_text(name: str) -> str:
    """Return the SQL of a column as JSON text; text in it counts as JSON."""
    return filled(_STRUCTS_ONLY, name)


def body_text() -> str:
    """Return the SQL of the column body as JSON text, as it is."""
    return filled(_JSON_ONLY, "body")


def option(endpoint: Endpoint, name: str) -> str:
    """Return the SQL of an option field's column as JSON text: '' for text that is not JSON, NULL for none.

    NaN and infinity are no text of a field that takes strings, but stay the numbers that a check of the rows finds.
    """
    text = f"({value(endpoint, name)})::VARCHAR"
    if "string" in endpoint.fields[name]:
        return f"CASE WHEN {filled(_NO_NUMBER, name)} THEN {identifier(name)}::VARCHAR ELSE {text} END"
    return f"coalesce({text}, CASE WHEN {identifier(name)} IS NOT NULL THEN '' END)"


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
