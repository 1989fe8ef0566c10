"""What a submission will cost at most, before it is sent, and what a job has cost, from its own results."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from duckdb_mistral import tokens
from duckdb_mistral.endpoints import CHAT, CONVERSATIONS, FIM
from duckdb_mistral.engines import own_engine
from duckdb_mistral.errors import ArgumentError
from duckdb_mistral.lines import register_requests
from duckdb_mistral.prices import MILLION
from duckdb_mistral.qualifying import call, qualified
from duckdb_mistral.quoting import literal
from duckdb_mistral.templates import template

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from duckdb_mistral.prices import Prices
    from duckdb_mistral.settings import Settings
    from duckdb_mistral.spool import SpooledPart

#: What a request without max_tokens is taken to answer with at most.
ASSUMED_OUTPUT_TOKENS = 4096
#: What stands for a number that is too large for one.
BIGGEST = 2**63 - 1
#: Endpoints whose answers are paid by the token.
WRITING = frozenset({CHAT, FIM, CONVERSATIONS})
#: What is read of a body, at once: each look would parse it again.
_FIELDS = (
    "model",
    "messages",
    "input",
    "inputs",
    "prompt",
    "suffix",
    "instructions",
    "tools",
    "max_tokens",
    "completion_args.max_tokens",
    "n",
)
#: Where the text of a request lies, in any endpoint's body: the field, and the path in it.
_TEXTS = (
    ("messages", "[*].content"),
    ("messages", "[*].content[*].text"),
    ("input", "[*]"),
    ("input", "[*].content"),
    ("input", "[*].content[*].text"),
    ("input", "[*][*].content"),
    ("input", ".messages[*].content"),
    ("input", "[*].messages[*].content"),
    ("inputs", "[*].content"),
    ("inputs", "[*].content[*].text"),
)
_TEXT = ("input", "inputs", "prompt", "suffix", "instructions", "tools")
#: Where a request says of what kind the parts of its messages are.
_KINDS = (
    ("messages", "[*].content[*].type"),
    ("input", "[*].content[*].type"),
    ("input", "[*][*].content[*].type"),
    ("input", ".messages[*].content[*].type"),
    ("inputs", "[*].content[*].type"),
)


def fields() -> str:
    """Return the SQL of the paths that `measures` wants of a body, as one list."""
    return qualified(call("list_value", *(literal(f"$.{name}") for name in _FIELDS)))


def _field(name: str) -> str:
    return call("list_extract", "fields", str(_FIELDS.index(name) + 1))


def measures(endpoint: str) -> dict[str, str]:
    """Return the SQL aggregates that measure the requests that name one model themselves: {name: SQL}.

    They are of the columns line, model, which is NULL for the job's own, and fields, what is at the paths `fields`.
    """
    found = ", ".join([*(_at(name, path) for name, path in _TEXTS), *(call("list_value", _field(n)) for n in _TEXT)])
    said = f"list_filter(flatten(list_value({found})), lambda part: starts_with(part::VARCHAR, '\"'))"
    texts = f"list_aggregate(list_transform({said}, lambda part: json_extract_string(part, '$')), 'string_agg', '')"
    text = call("concat", texts, call("json_extract_string", _field("tools"), "'$'"))
    counted = f"mistral_internal_tokens({text}, model)"
    if tokens.tokens_from() == tokens.BYTES:
        counted = call("ceil", call("/", call("strlen", text), f"{tokens.BYTES_PER_TOKEN}.0"))
    # What a message costs besides its text: a token before it and one after it, and one at the start.
    messages = f"json_array_length({_field('messages')})"
    marks = f"CASE WHEN {messages} > 0 THEN add(1, multiply(2, {messages})) ELSE 0 END"
    limit = f"coalesce({_whole('max_tokens')}, {_whole('completion_args.max_tokens')})"
    # A negative number is refused by the API; it must not make up for what others cost.
    # Nor may one be so large that the sum of many is no number any more.
    limited, times = (
        f"least(greatest(coalesce({given}, {usual}), 0), {most})"
        for given, usual, most in ((limit, ASSUMED_OUTPUT_TOKENS, MILLION * 1000), (_whole("n"), 1, 1000))
    )
    most = call("multiply", limited, times)
    # Images and documents have tokens too, which nothing here counts. To look for the word first is far quicker.
    kinds = ", ".join(_at(name, path) for name, path in _KINDS)
    worded = " OR ".join(f"contains({_field(name)}::VARCHAR, '\"type\"')" for name in dict(_KINDS))
    other = f"list_filter(flatten(list_value({kinds})), lambda kind: kind::VARCHAR <> '\"text\"')"
    writes = endpoint in WRITING
    return {
        "model": "model",
        "requests": "count(*)",
        "input_bytes": "sum(strlen(line))::BIGINT",
        "input_tokens": f"coalesce(sum(add({counted}, {marks})), 0)::BIGINT",
        "max_output_tokens": f"sum({most})::BIGINT" if writes else "0::BIGINT",
        "unlimited": f"count(*) FILTER (WHERE {limit} IS NULL)" if writes else "0::BIGINT",
        "uncounted": f"count(*) FILTER (WHERE ({worded}) AND len({other}) > 0)",
    }


def measures_sql(endpoint: str) -> str:
    """Return what a statement SELECTs to measure requests."""
    return qualified(", ".join(f"{sql} AS {name}" for name, sql in measures(endpoint).items()))


def _at(name: str, path: str) -> str:
    """Return the SQL of what is at a path in a field."""
    return call("json_extract", _field(name), literal(f"${path}"))


def _whole(name: str) -> str:
    number = call("json_extract_string", _field(name), "'$'")
    return f"coalesce(TRY_CAST({number} AS BIGINT), CASE WHEN TRY_CAST({number} AS DOUBLE) > 0 THEN {BIGGEST} END)"


def measure(endpoint: str, parts: Sequence[SpooledPart]) -> list[dict[str, Any]]:
    """Measure the requests of a finished spool by model, as a statement measures a source."""
    if not parts:
        return []
    statement = template("measured_requests").substitute(fields=fields(), measures=measures_sql(endpoint))
    with own_engine() as engine:
        tokens.create_function(engine)
        register_requests(engine, "request_lines", (part.path for part in parts))
        return [dict(zip(measures(endpoint), row, strict=True)) for row in engine.execute(statement).fetchall()]


def estimate(
    models: Sequence[str], endpoint: str, measured: Sequence[Mapping[str, Any]], settings: Settings, prices: Prices
) -> dict[str, Any]:
    """Return the row of mistral_batch_estimate for requests that were measured; costs are US dollars, in a batch."""
    total = {name: sum(part[name] for part in measured) for name in _SUMMED}
    most = min(settings.max_requests_per_job, settings.max_pending_requests)
    parts = max(-(-total["requests"] // most), -(-total["input_bytes"] // settings.max_bytes_per_file))
    row = {
        "requests": total["requests"] * len(models),
        "input_bytes": total["input_bytes"],
        "jobs": parts * len(models),
        "input_tokens": total["input_tokens"] * len(models),
        "max_output_tokens": total["max_output_tokens"] * len(models),
        "tokens_from": tokens.tokens_from(),
        "prices_date": prices.date,
    }
    notes = [] if row["tokens_from"] == tokens.TOKENIZER else [_BYTES_NOTE]
    if total["unlimited"]:
        told = "1 request has" if total["unlimited"] == 1 else f"{total['unlimited']:,} requests have"
        taken = "is" if total["unlimited"] == 1 else "are"
        notes.append(
            f"{told} no max_tokens and {taken} taken to answer with at most {ASSUMED_OUTPUT_TOKENS:,} tokens each"
        )
    # A request that names a model runs on that one in every job.
    costs = [
        _costs(model if part["model"] is None else part["model"], endpoint, part, prices)
        for model in models
        for part in measured or [total | {"model": None}]
    ]
    notes += dict.fromkeys(cost for cost in costs if isinstance(cost, str))
    known = [cost for cost in costs if not isinstance(cost, str)]
    whole = len(known) == len(costs)
    paid = sum(cost[0] for cost in known) if whole else None
    output = sum(cost[1] for cost in known) if whole else None
    return row | {
        "input_cost": paid,
        "max_output_cost": output,
        "cost": None if paid is None or output is None else paid + output,
        "note": "; ".join(notes) or None,
    }


def refuse_above(max_cost: float, row: Mapping[str, Any]) -> None:
    """Raise ArgumentError where an estimate is above `max_cost`, or says no cost."""
    if row["cost"] is None:
        raise ArgumentError(
            f"max_cost is {max_cost:g} US dollars, but what this submission costs is not known: {row['note']}. Nothing "
            "was sent. Name its price in a file (the setting prices), or leave max_cost out."
        )
    if row["cost"] > max_cost:
        told = f" ({row['note']})" if row["note"] else ""
        raise ArgumentError(
            f"This submission may cost up to {row['cost']:.6g} US dollars, which is more than max_cost, {max_cost:g}: "
            f"{row['requests']:,} {'request' if row['requests'] == 1 else 'requests'}, "
            f"{row['input_tokens']:,} tokens in for {row['input_cost']:.6g}, at most "
            f"{row['max_output_tokens']:,} out for {row['max_output_cost']:.6g}, at batch prices of "
            f"{row['prices_date']}{told}. Nothing was sent."
        )


def cost(model: str, used: Mapping[str, Any], prices: Prices) -> tuple[float | None, str | None]:
    """Return what a job has cost in US dollars, from what its results say that it used, or None and why."""
    price = prices.of(model)
    if price is None:
        return None, _unknown(model, prices)
    total = 0.0
    for amount, each, unit in (
        (used["prompt_tokens"] if not used["audio_seconds"] else 0, price.input, "input tokens"),
        (used["completion_tokens"] if price.audio_minute is None else 0, price.output, "output tokens"),
        (used["pages"] * MILLION, price.page, "pages"),
        (used["audio_seconds"] / 60 * MILLION, price.audio_minute, "audio"),
    ):
        if amount and each is None:
            return None, f"the price table of {prices.date} has no price of {model} for {unit}"
        total += amount * (each or 0) / MILLION
    return total * prices.batch_share, None


_SUMMED = ("requests", "input_bytes", "input_tokens", "max_output_tokens", "unlimited", "uncounted")
_BYTES_NOTE = (
    f"input tokens are an estimate of one per {tokens.BYTES_PER_TOKEN} bytes of text: pip install "
    "'duckdb-mistral[tokens]' counts them"
)


def _costs(model: str, endpoint: str, measured: Mapping[str, Any], prices: Prices) -> tuple[float, float] | str:
    """Return the cost of a model's input and of the most that it can answer, or why they are not known."""
    price = prices.of(model)
    if price is None:
        return _unknown(model, prices)
    if price.input is None:
        return f"{model} is paid by the page or the minute, which {endpoint} does not tell beforehand"
    if measured["uncounted"]:
        count = measured["uncounted"]
        return (
            f"{'1 request holds' if count == 1 else f'{count:,} requests hold'} parts other than text, such as images "
            "or documents, whose tokens are not known beforehand"
        )
    share = prices.batch_share / MILLION
    return (
        measured["input_tokens"] * price.input * share,
        measured["max_output_tokens"] * (price.output or 0) * share,
    )


def _unknown(model: str, prices: Prices) -> str:
    return f"the price table of {prices.date} does not know {model}"
