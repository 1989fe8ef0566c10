"""Columns of a source that are no field of its endpoint's requests: which were meant as one, and which are data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from duckdb_mistral.api.endpoints import WRITING, all_endpoints
from duckdb_mistral.duck.quoting import identifier

if TYPE_CHECKING:
    from collections.abc import Container, Iterable

    from duckdb_mistral.api.endpoints import Endpoint

#: What other APIs and model servers call a field of Mistral's.
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
#: Fields of other APIs and model servers that Mistral's has none for.
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
#: Fields of other endpoints by whose names data goes as well.
_ALSO_DATA = frozenset({"agent_id", "agent_version", "file_id", "file_url", "service_tier"})


def taken_for_field(endpoint: Endpoint, name: str, others: Container[str]) -> str | None:
    """Return why a column was probably meant for a field of the request, and what to do; None for plain data.

    `name` is in lower case, and so are those of the `others`, all columns of the source. A name of one word is data
    where it is another endpoint's field (pages, language, suffix); with an underscore it is not.
    """
    field = OTHER_NAMES.get(name)
    leaving = f"it out (SELECT * EXCLUDE ({identifier(name)}))"
    if field is not None and (field in endpoint.option_fields or (field == "system" and endpoint.takes_system)):
        # Beside the field itself it serves something else.
        return None if field in others else f"is what others call {field}. Rename it to {field}, or leave {leaving}"
    if name in OTHER_FIELDS and endpoint.path in WRITING:
        kind = "a field of other APIs that Mistral's has not"
    elif "_" in name and name not in _ALSO_DATA and (of := _endpoint_with(name)) is not None:
        kind = f"a field of {of} that {endpoint.path} has not"
    else:
        return None
    return f"is {kind}. Leave {leaving}, or put it into params, which sends it as it is"


def unsent_columns(endpoint: Endpoint, names: Iterable[str]) -> list[str]:
    """Return the columns of a source that are not sent, in its order."""
    sent = {*endpoint.own_columns, *endpoint.option_fields}
    return [name for name in names if name.lower() not in sent]


def _endpoint_with(field: str) -> str | None:
    return next((path for path, endpoint in all_endpoints().items() if field in endpoint.fields), None)
