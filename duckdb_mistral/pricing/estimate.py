"""The most that a submission will cost, before it is sent, and what a job cost, from its own results."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from duckdb_mistral.api.endpoints import OCR, TRANSCRIPTIONS
from duckdb_mistral.errors import ArgumentError
from duckdb_mistral.pricing import tokens
from duckdb_mistral.pricing.measures import ASSUMED_OUTPUT_TOKENS
from duckdb_mistral.pricing.prices import MILLION, today

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import date

    from duckdb_mistral.pricing.prices import Price, Prices
    from duckdb_mistral.settings import Settings

#: Endpoints whose requests name a file, which is not opened here.
_OF_FILES = frozenset({OCR, TRANSCRIPTIONS})
_SUMMED = ("requests", "input_bytes", "input_tokens", "max_output_tokens", "unlimited", "uncounted", "hidden")
_BYTES_NOTE = (
    f"input tokens are an estimate of one per {tokens.BYTES_PER_TOKEN} bytes of text: pip install "
    "'duckdb-mistral[tokens]' counts them"
)


def estimate(
    models: Sequence[str],
    endpoint: str,
    measured: Sequence[Mapping[str, Any]],
    settings: Settings,
    prices: Prices,
    unsent: Sequence[str] = (),
) -> dict[str, Any]:
    """Return the row of mistral_batch_estimate for measured requests; costs are in US dollars, at batch price.

    `unsent` names the columns of the source that are not sent.
    """
    total = {name: sum(part[name] for part in measured) for name in _SUMMED}
    most = min(settings.max_requests_per_job, settings.max_pending_requests)
    parts = max(-(-total["requests"] // most), -(-total["input_bytes"] // settings.max_bytes_per_file))
    # A request that names a model runs on it in every job.
    runs = [
        (model if part["model"] is None else part["model"], part)
        for model in models
        for part in measured or [total | {"model": None}]
    ]
    known = dict.fromkeys(model for model, _ in runs)
    row = {
        "requests": total["requests"] * len(models),
        "input_bytes": total["input_bytes"],
        "jobs": parts * len(models),
        "input_tokens": total["input_tokens"] * len(models),
        "max_output_tokens": total["max_output_tokens"] * len(models),
        "tokens_from": tokens.tokens_from(),
        "prices_date": prices_date(known, prices),
    }
    costs = [_costs(model, endpoint, part, prices) for model, part in runs]
    notes = [
        *dict.fromkeys(cost for cost in costs if isinstance(cost, str)),
        *([] if row["tokens_from"] == tokens.TOKENIZER else [_BYTES_NOTE]),
        *_unlimited(total["unlimited"]),
        *_remarks(known, prices, today()),
        *_left_out(unsent),
    ]
    told = [cost for cost in costs if not isinstance(cost, str)]
    paid, output = (sum(cost[kind] for cost in told) if len(told) == len(costs) else None for kind in (0, 1))
    return row | {
        "input_cost": paid,
        "max_output_cost": output,
        "cost": None if paid is None or output is None else paid + output,
        "note": "; ".join(notes) or None,
    }


def refuse_above(max_cost: float, row: Mapping[str, Any]) -> None:
    """Raise ArgumentError if an estimate exceeds `max_cost`, or has no cost."""
    if row["cost"] is None:
        raise ArgumentError(
            f"max_cost is {max_cost:g} US dollars, but the cost of this submission is not known: {row['note']}. "
            "Nothing was sent. Name its price in a file (the setting prices), or leave max_cost out."
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
    """Return what a model's answers cost in US dollars, at batch price, from the usage that they report.

    The cost is None if it is not known. The second value says why, or whatever else there is to say.
    """
    price = prices.of(model)
    if price is None:
        return None, _unknown(model, prices)
    total = 0.0
    notes = list(price.remarks(model, today()))
    for amount, each, unit in _amounts(used, price, notes):
        if each is None:
            return None, f"the price table of {price.checked or prices.date} has no price of {model} for {unit}"
        total += amount * each / MILLION
    total *= prices.batch_share
    silent = _silent(used, price)
    if silent:
        answers = "1 answer does" if silent == 1 else f"{silent:,} answers do"
        notes.insert(0, f"{answers} not report usage, so the cost is not known; all else costs {total:.6g}")
    return None if silent else total, "; ".join(notes) or None


def prices_date(models: Mapping[str, Any], prices: Prices) -> date:
    """Return the earliest day on which the prices of models were looked up, or the table's own if it has none."""
    days = (price.checked for model in models if (price := prices.of(model)) is not None)
    return min(filter(None, days), default=prices.date)


def _amounts(used: Mapping[str, Any], price: Price, notes: list[str]) -> Iterator[tuple[float, float | None, str]]:
    """Yield what was used: the amount in millionths, the price per million, and the unit; remarks go to `notes`."""
    prompt, written, cached = used["prompt_tokens"], used["completion_tokens"], used.get("cached_tokens") or 0
    pages, annotated, seconds = used["pages"], used.get("annotated_pages") or 0, used["audio_seconds"]
    cached = min(cached, prompt)
    # Models sold only by the page or the minute count tokens too, but do not bill them.
    by_another = (pages and price.page is not None) or (seconds and price.audio_minute is not None)
    if price.input is not None or price.output is not None or not by_another:
        cached_price = price.input if price.cached_input is None else price.cached_input
        if cached and price.input and price.cached_input is None:
            notes.append(f"{cached:,} cached prompt tokens are priced in full: the table has no price for them")
        yield from _used(prompt - cached, price.input, "input tokens")
        yield from _used(cached, cached_price, "input tokens")
        yield from _used(written, price.output, "output tokens")
    yield from _used(pages * MILLION, price.page, "pages")
    yield from _used(annotated * MILLION, price.annotated_page, "annotated pages")
    yield from _used(seconds / 60 * MILLION, price.audio_minute, "audio")


def _used(amount: float, each: float | None, unit: str) -> Iterator[tuple[float, float | None, str]]:
    if amount:
        yield amount, each, unit


def _silent(used: Mapping[str, Any], price: Price) -> int:
    """Return how many answers do not report the usage of something that is not free."""
    silent = 0 if price.free else used.get("unmetered") or 0
    return int(silent + ((used.get("unwritten") or 0) if price.output else 0))


def _costs(model: str, endpoint: str, measured: Mapping[str, Any], prices: Prices) -> tuple[float, float] | str:
    """Return the cost of a model's input and of its longest possible output, or why they are not known."""
    price = prices.of(model)
    if price is None:
        return _unknown(model, prices)
    if price.free:
        return 0.0, 0.0
    if price.input is None or endpoint in _OF_FILES:
        return f"{model} is paid by the page or the minute, which is not known in advance for {endpoint}"
    if measured["uncounted"]:
        count = measured["uncounted"]
        return (
            f"{'1 request holds' if count == 1 else f'{count:,} requests hold'} parts other than text, such as images "
            "or documents, whose tokens are not known in advance"
        )
    if measured["hidden"]:
        count = measured["hidden"]
        return (
            f"{'1 request asks' if count == 1 else f'{count:,} requests ask'} for something that the API charges extra "
            "for (an agent, tools other than functions, prompt_mode or service_tier), which is not known in advance"
        )
    share = prices.batch_share / MILLION
    return (
        measured["input_tokens"] * price.input * share,
        measured["max_output_tokens"] * (price.output or 0) * share,
    )


def _unlimited(count: int) -> Iterator[str]:
    if count:
        told, taken = ("1 request has", "is") if count == 1 else (f"{count:,} requests have", "are")
        yield f"{told} no max_tokens and {taken} assumed to answer with at most {ASSUMED_OUTPUT_TOKENS:,} tokens each"


def _remarks(models: Mapping[str, Any], prices: Prices, day: date) -> Iterator[str]:
    """Yield remarks on the prices of models that are about to run."""
    for model in models:
        price = prices.of(model)
        if price is None:
            continue
        if price.retired is not None:
            ended = price.retired <= day
            yield (
                f"{model} {'was' if ended else 'will be'} retired on {price.retired}"
                f"{', and the API refuses it' if ended else ''}"
            )
        yield from price.remarks(model, day)


def _left_out(columns: Sequence[str], most: int = 20) -> Iterator[str]:
    """Yield which columns of a source are not fields of its requests."""
    if columns:
        more = f" and {len(columns) - most:,} more" if len(columns) > most else ""
        which = f"column {columns[0]} is" if len(columns) == 1 else f"columns {', '.join(columns[:most])}{more} are"
        yield f"the {which} not sent"


def _unknown(model: str, prices: Prices) -> str:
    return f"the price table of {prices.date} does not know {model}"
