"""Columns of a source that are not fields of its endpoint's requests: which were meant as one, and which are data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from duckdb_mistral.api.endpoints import WRITING, all_endpoints
from duckdb_mistral.duck.quoting import identifier

if TYPE_CHECKING:
    from collections.abc import Container, Iterable

    from duckdb_mistral.api.endpoints import Endpoint

#: What other APIs and model servers call Mistral's fields.
OTHER_NAMES = {
    "max_completion_tokens": "max_tokens",
    "max_output_tokens": "max_tokens",
    "max_new_tokens": "max_tokens",
    "num_predict": "max_tokens",
    "min_new_tokens": "min_tokens",
    "seed": "random_seed",
    "stop_sequences": "stop",
    "stop_sequence": "stop",
    "num_completions": "n",
    "num_return_sequences": "n",
    "candidate_count": "n",
    "repeat_penalty": "repetition_penalty",
    "json_schema": "response_format",
    "response_schema": "response_format",
    "text_format": "response_format",
    "function_call": "tool_choice",
    "safe_mode": "safe_prompt",
    "system_prompt": "system",
    "system_message": "system",
    "system_instruction": "system",
    "dimensions": "output_dimension",
    "output_dim": "output_dimension",
    "output_dimensionality": "output_dimension",
    "embedding_type": "output_dtype",
    "embedding_types": "output_dtype",
}
#: Fields of other APIs and model servers that Mistral's API does not have.
OTHER_FIELDS = frozenset(
    {
        "budget_tokens",
        "extra_body",
        "guided_choice",
        "guided_grammar",
        "guided_json",
        "guided_regex",
        "ignore_eos",
        "length_penalty",
        "logit_bias",
        "max_tool_calls",
        "min_p",
        "no_repeat_ngram_size",
        "previous_response_id",
        "prompt_cache_retention",
        "response_mime_type",
        "safety_identifier",
        "stream_options",
        "thinking_budget",
        "typical_p",
        "web_search_options",
    }
)
#: Fields of other endpoints that are also common names for data.
_ALSO_DATA = frozenset({"agent_id", "agent_version", "file_id", "file_url", "service_tier"})


def taken_for_field(endpoint: Endpoint, name: str, others: Container[str]) -> str | None:
    """Return why a column was probably meant for a field of the request, and what to do; None for plain data.

    `name` is in lower case, and so are the `others`, all columns of the source. If another endpoint has a field of
    this name, it is still data if it is a single word (pages, language, suffix), but not with an underscore.
    """
    field = OTHER_NAMES.get(name)
    leaving = f"it out (SELECT * EXCLUDE ({identifier(name)}))"
    if field is not None and (field in endpoint.option_fields or (field == "system" and endpoint.takes_system)):
        # If the field itself is there too, this column serves another purpose.
        return None if field in others else f"is what others call {field}. Rename it to {field}, or leave {leaving}"
    if name in OTHER_FIELDS and endpoint.path in WRITING:
        kind = "a field of other APIs that Mistral's does not have"
    elif "_" in name and name not in _ALSO_DATA and (of := _endpoint_with(name)) is not None:
        kind = f"a field of {of} that {endpoint.path} does not have"
    else:
        return None
    return f"is {kind}. Leave {leaving}, or put it into params, which sends it as it is"


def unsent_columns(endpoint: Endpoint, names: Iterable[str]) -> list[str]:
    """Return the columns of a source that are not sent, in the source's order."""
    sent = {*endpoint.own_columns, *endpoint.option_fields}
    return [name for name in names if name.lower() not in sent]


def _endpoint_with(field: str) -> str | None:
    return next((path for path, endpoint in all_endpoints().items() if field in endpoint.fields), None)
