"""The size of a submission's requests, as DuckDB counts it: bytes, tokens, and what cannot be counted here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from duckdb_mistral.api.endpoints import WRITING
from duckdb_mistral.duck.engine import own_engine
from duckdb_mistral.duck.jsonl import register_requests
from duckdb_mistral.duck.qualifying import call, qualified
from duckdb_mistral.duck.quoting import literal, literals
from duckdb_mistral.duck.sql_files import template
from duckdb_mistral.pricing import tokens
from duckdb_mistral.pricing.prices import MILLION

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from duckdb_mistral.requests.spool import SpooledPart

#: The most tokens that a request without max_tokens is assumed to answer with.
ASSUMED_OUTPUT_TOKENS = 4096
#: The prompt that safe_prompt puts before a conversation has about 40 tokens.
SAFETY_PROMPT_TOKENS = 64
#: Service tiers that cost what the table says.
_USUAL_TIERS = ("standard", "standard_only", "default")
#: Replaces a number that is too large.
BIGGEST = 2**63 - 1
#: Where a request's text is: the fields of its body, and the paths in them.
_TALKS = {
    "messages": ("[*].content", "[*].content[*].text"),
    "input": (
        "",
        "[*]",
        "[*].content",
        "[*].content[*].text",
        "[*][*].content",
        ".messages[*].content",
        "[*].messages[*].content",
    ),
    "inputs": ("", "[*].content", "[*].content[*].text"),
}
#: The members of messages whose whole text the paths above find. Any other member (tool_calls, name, prefix …) may
#: have text too; then the whole JSON is counted, because too much is better than too little.
_PLAIN_KEYS = ("role", "content", "type", "text", "messages")
#: The kinds of parts of a message whose tokens can be counted.
_COUNTED_KINDS = ('"text"', '"thinking"', '"reference"')
#: Fields that are a single text.
_TEXTS = ("prompt", "suffix", "instructions")
#: Fields that the model reads as JSON.
_READ_AS_JSON = (
    "tools",
    "tool_choice",
    "response_format",
    "prediction",
    "completion_args.tool_choice",
    "completion_args.response_format",
    "completion_args.prediction",
)
#: Where a request says what kinds of parts its messages have.
_KINDS = {
    "messages": ("[*].content[*].type",),
    "input": ("[*].content[*].type", "[*][*].content[*].type", ".messages[*].content[*].type"),
    "inputs": ("[*].content[*].type",),
}
#: The fields read from a body, all at once, because each separate read would parse it again.
_FIELDS = (
    "model",
    *_TALKS,
    *_TEXTS,
    *_READ_AS_JSON,
    "max_tokens",
    "completion_args.max_tokens",
    "n",
    "safe_prompt",
    "prompt_mode",
    "service_tier",
    "agent_id",
)


def fields() -> str:
    """Return the SQL of the paths that `measures` reads from a body, as one list."""
    return qualified(call("list_value", *(literal(f"$.{name}") for name in _FIELDS)))


def measures(endpoint: str) -> dict[str, str]:
    """Return the SQL aggregates that measure the requests for one model: {name: SQL}.

    They read the columns line; model, which is NULL for the job's own; and fields, the values at the paths `fields`.
    `uncounted` and `hidden` are requests whose tokens cannot be counted here, because of what their messages hold and
    because of what the API adds to them, respectively.
    """
    text = f"concat({', '.join([*map(_talk, _TALKS), *map(_string, _TEXTS), *map(_string, _READ_AS_JSON)])})"
    counted = f"mistral_internal_tokens({text}, model)"
    if tokens.tokens_from() == tokens.BYTES:
        counted = call("ceil", call("/", call("strlen", text), f"{tokens.BYTES_PER_TOKEN}.0"))
    # Tokens that messages cost besides their text: one before and one after each, and one at the start.
    messages = f"json_array_length({_field('messages')})"
    marks = f"CASE WHEN {messages} > 0 THEN add(1, multiply(2, {messages})) ELSE 0 END"
    safety = f"CASE WHEN {_string('safe_prompt')} = 'true' THEN {SAFETY_PROMPT_TOKENS} ELSE 0 END"
    limit = f"coalesce({_whole('max_tokens')}, {_whole('completion_args.max_tokens')})"
    # The API refuses a negative number; it must not offset what others cost.
    # Nor may a number be so large that the sum of many overflows.
    limited, times = (
        f"least(greatest(coalesce({given}, {usual}), 0), {most})"
        for given, usual, most in ((limit, ASSUMED_OUTPUT_TOKENS, MILLION * 1000), (_whole("n"), 1, 1000))
    )
    most = call("multiply", limited, times)
    writes = endpoint in WRITING
    return {
        "model": "model",
        "requests": "count(*)",
        "input_bytes": "sum(strlen(line))::BIGINT",
        "input_tokens": f"coalesce(sum(add({counted}, add({marks}, {safety}))), 0)::BIGINT",
        "max_output_tokens": f"sum({most})::BIGINT" if writes else "0::BIGINT",
        "unlimited": f"count(*) FILTER (WHERE {limit} IS NULL)" if writes else "0::BIGINT",
        "uncounted": f"count(*) FILTER (WHERE {' OR '.join(map(_other_parts, _KINDS))})",
        "hidden": f"count(*) FILTER (WHERE {_hidden()})",
    }


def measures_sql(endpoint: str) -> str:
    """Return the SELECT list that measures requests."""
    return qualified(", ".join(f"{sql} AS {name}" for name, sql in measures(endpoint).items()))


def measure(endpoint: str, parts: Sequence[SpooledPart]) -> list[dict[str, Any]]:
    """Measure the requests of a finished spool by model, in the same way as a statement measures a source."""
    if not parts:
        return []
    statement = template("measured_requests").substitute(fields=fields(), measures=measures_sql(endpoint))
    with own_engine() as engine:
        tokens.create_function(engine)
        register_requests(engine, "request_lines", (part.path for part in parts))
        return [dict(zip(measures(endpoint), row, strict=True)) for row in engine.execute(statement).fetchall()]


def _field(name: str) -> str:
    return call("list_extract", "fields", str(_FIELDS.index(name) + 1))


def _at(name: str, path: str) -> str:
    """Return the SQL of the value at a path in a field."""
    return call("json_extract", _field(name), literal(f"${path}"))


def _string(name: str) -> str:
    """Return the SQL of a field's text: a string's own, or the JSON of anything else."""
    return call("json_extract_string", _field(name), "'$'")


def _whole(name: str) -> str:
    number = _string(name)
    return f"coalesce(TRY_CAST({number} AS BIGINT), CASE WHEN TRY_CAST({number} AS DOUBLE) > 0 THEN {BIGGEST} END)"


def _talk(name: str) -> str:
    """Return the SQL of the text in a field that holds messages or texts."""
    field = _field(name)
    found = ", ".join(_at(name, path) if path else call("list_value", field) for path in _TALKS[name])
    said = f"list_filter(flatten(list_value({found})), lambda part: starts_with(part::VARCHAR, '\"'))"
    keys = f'regexp_extract_all(json_structure({field})::VARCHAR, \'"([^"]*)":\', 1)'
    more = f"len(list_filter({keys}, lambda key: key NOT IN ({literals(_PLAIN_KEYS)}))) > 0"
    # If some parts are lists and others text, they have no common structure.
    more = f"({more} OR {_parts_besides(name, [literal(_COUNTED_KINDS[0])])}) AND NOT {_other_parts(name)}"
    # Counting what could be keys is far quicker than parsing, and plain messages have exactly two each. Only CASE
    # skips the expensive branch.
    likely = f"subtract(strlen({field}::VARCHAR), strlen(replace({field}::VARCHAR, '\":', '')))"
    usual = f"multiply(4, json_array_length({field}))" if name == "messages" else "0"
    whole = f"CASE WHEN {likely} = {usual} THEN false ELSE {more} END"
    return (
        f"CASE WHEN {field} IS NULL THEN '' WHEN {whole} THEN {field}::VARCHAR "
        f"ELSE list_aggregate(list_transform({said}, lambda part: json_extract_string(part, '$')), "
        "'string_agg', '') END"
    )


def _other_parts(name: str) -> str:
    """Return the condition that a field has parts whose tokens cannot be counted, such as images and documents."""
    return _parts_besides(name, map(literal, _COUNTED_KINDS))


def _parts_besides(name: str, kinds: Iterable[str]) -> str:
    field = _field(name)
    found = ", ".join(_at(name, path) for path in _KINDS[name])
    other = f"list_filter(flatten(list_value({found})), lambda kind: kind::VARCHAR NOT IN ({', '.join(kinds)}))"
    # Searching for the word first is far quicker.
    return f"coalesce(contains({field}::VARCHAR, '\"type\"') AND len({other}) > 0, false)"


def _hidden() -> str:
    """Return the condition that the API adds its own tokens, or a charge, to a request."""
    tools = _field("tools")
    own_tools = (
        f"len(list_filter(json_extract({tools}, '$[*].type'), lambda kind: kind::VARCHAR <> '\"function\"')) > 0"
    )
    tier = f"coalesce({_string('service_tier')}, 'standard') NOT IN ({literals(_USUAL_TIERS)})"
    others = (f"{_string(name)} IS NOT NULL" for name in ("prompt_mode", "agent_id"))
    return " OR ".join((f"coalesce({tools} IS NOT NULL AND {own_tools}, false)", tier, *others))
