"""How much a submission's requests hold, as DuckDB counts it: bytes, tokens, and what nothing here can count."""

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

#: What a request without max_tokens is taken to answer with at most.
ASSUMED_OUTPUT_TOKENS = 4096
#: The prompt that safe_prompt puts before a conversation has some 40 tokens.
SAFETY_PROMPT_TOKENS = 64
#: Capacity that has the price of the table.
_USUAL_TIERS = ("standard", "standard_only", "default")
#: What stands for a number that is too large for one.
BIGGEST = 2**63 - 1
#: Where the text of a request lies, by the field of its body and the paths in it.
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
#: What messages hold whose text is all that the paths above find. Any other member (tool_calls, name, prefix …) has a
#: text of its own, and then the whole JSON is counted, which is rather too much than too little.
_PLAIN_KEYS = ("role", "content", "type", "text", "messages")
#: The kinds of parts of a message whose tokens can be counted.
_COUNTED_KINDS = ('"text"', '"thinking"', '"reference"')
#: Fields that are one text.
_TEXTS = ("prompt", "suffix", "instructions")
#: Fields whose JSON the model reads.
_READ_AS_JSON = (
    "tools",
    "tool_choice",
    "response_format",
    "prediction",
    "completion_args.tool_choice",
    "completion_args.response_format",
    "completion_args.prediction",
)
#: Where a request says of what kind the parts of its messages are.
_KINDS = {
    "messages": ("[*].content[*].type",),
    "input": ("[*].content[*].type", "[*][*].content[*].type", ".messages[*].content[*].type"),
    "inputs": ("[*].content[*].type",),
}
#: What is read of a body, at once: each look would parse it again.
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
    """Return the SQL of the paths that `measures` wants of a body, as one list."""
    return qualified(call("list_value", *(literal(f"$.{name}") for name in _FIELDS)))


def measures(endpoint: str) -> dict[str, str]:
    """Return the SQL aggregates that measure the requests that name one model themselves: {name: SQL}.

    They are of the columns line, model, which is NULL for the job's own, and fields, what is at the paths `fields`.
    `uncounted` and `hidden` are the requests whose tokens nothing here can count: for what their messages hold, and
    for what the API adds to them.
    """
    text = f"concat({', '.join([*map(_talk, _TALKS), *map(_string, _TEXTS), *map(_string, _READ_AS_JSON)])})"
    counted = f"mistral_internal_tokens({text}, model)"
    if tokens.tokens_from() == tokens.BYTES:
        counted = call("ceil", call("/", call("strlen", text), f"{tokens.BYTES_PER_TOKEN}.0"))
    # What a message costs besides its text: a token before it and one after it, and one at the start.
    messages = f"json_array_length({_field('messages')})"
    marks = f"CASE WHEN {messages} > 0 THEN add(1, multiply(2, {messages})) ELSE 0 END"
    safety = f"CASE WHEN {_string('safe_prompt')} = 'true' THEN {SAFETY_PROMPT_TOKENS} ELSE 0 END"
    limit = f"coalesce({_whole('max_tokens')}, {_whole('completion_args.max_tokens')})"
    # A negative number is refused by the API; it must not make up for what others cost.
    # Nor may one be so large that the sum of many is no number any more.
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
    """Return what a statement SELECTs to measure requests."""
    return qualified(", ".join(f"{sql} AS {name}" for name, sql in measures(endpoint).items()))


def measure(endpoint: str, parts: Sequence[SpooledPart]) -> list[dict[str, Any]]:
    """Measure the requests of a finished spool by model, as a statement measures a source."""
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
    """Return the SQL of what is at a path in a field."""
    return call("json_extract", _field(name), literal(f"${path}"))


def _string(name: str) -> str:
    """Return the SQL of a field's text: that of a string, or the JSON of anything else."""
    return call("json_extract_string", _field(name), "'$'")


def _whole(name: str) -> str:
    number = _string(name)
    return f"coalesce(TRY_CAST({number} AS BIGINT), CASE WHEN TRY_CAST({number} AS DOUBLE) > 0 THEN {BIGGEST} END)"


def _talk(name: str) -> str:
    """Return the SQL of the text of a field that holds messages, or texts."""
    field = _field(name)
    found = ", ".join(_at(name, path) if path else call("list_value", field) for path in _TALKS[name])
    said = f"list_filter(flatten(list_value({found})), lambda part: starts_with(part::VARCHAR, '\"'))"
    keys = f'regexp_extract_all(json_structure({field})::VARCHAR, \'"([^"]*)":\', 1)'
    more = f"len(list_filter({keys}, lambda key: key NOT IN ({literals(_PLAIN_KEYS)}))) > 0"
    # Parts of which some are lists and some are text have no common structure.
    more = f"({more} OR {_parts_besides(name, [literal(_COUNTED_KINDS[0])])}) AND NOT {_other_parts(name)}"
    # To count what could be keys is far quicker than to parse, and messages that are nothing else have two each. Only
    # CASE spares what comes after it.
    likely = f"subtract(strlen({field}::VARCHAR), strlen(replace({field}::VARCHAR, '\":', '')))"
    usual = f"multiply(4, json_array_length({field}))" if name == "messages" else "0"
    whole = f"CASE WHEN {likely} = {usual} THEN false ELSE {more} END"
    return (
        f"CASE WHEN {field} IS NULL THEN '' WHEN {whole} THEN {field}::VARCHAR "
        f"ELSE list_aggregate(list_transform({said}, lambda part: json_extract_string(part, '$')), "
        "'string_agg', '') END"
    )


def _other_parts(name: str) -> str:
    """Return the condition that a field has parts, such as images and documents, whose tokens nothing here counts."""
    return _parts_besides(name, map(literal, _COUNTED_KINDS))


def _parts_besides(name: str, kinds: Iterable[str]) -> str:
    field = _field(name)
    found = ", ".join(_at(name, path) for path in _KINDS[name])
    other = f"list_filter(flatten(list_value({found})), lambda kind: kind::VARCHAR NOT IN ({', '.join(kinds)}))"
    # To look for the word first is far quicker.
    return f"coalesce(contains({field}::VARCHAR, '\"type\"') AND len({other}) > 0, false)"


def _hidden() -> str:
    """Return the condition that the API adds tokens, or a price, of its own to a request."""
    tools = _field("tools")
    own_tools = (
        f"len(list_filter(json_extract({tools}, '$[*].type'), lambda kind: kind::VARCHAR <> '\"function\"')) > 0"
    )
    tier = f"coalesce({_string('service_tier')}, 'standard') NOT IN ({literals(_USUAL_TIERS)})"
    others = (f"{_string(name)} IS NOT NULL" for name in ("prompt_mode", "agent_id"))
    return " OR ".join((f"coalesce({tools} IS NOT NULL AND {own_tools}, false)", tier, *others))
