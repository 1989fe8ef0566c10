"""JSON as its standard has it: DuckDB takes more for JSON than that."""

from __future__ import annotations

from duckdb_mistral.duck.quoting import literal
from duckdb_mistral.results.mending import with_whole_pairs

#: What DuckDB takes for JSON besides what is: a comma before a bracket, and numbers that are none.
_LENIENT = r"(?i),\s*[}\]]|nan|inf"
_STRING = r'"(?:[^"\\]|\\.)*"'
_HALF = r"\\u[dD][89a-fA-F]"


def strict_json(text: str) -> str:
    """Return the SQL of a text as JSON; NULL where it is none, also where DuckDB would take it for some.

    Half a character, which JSON may spell and DuckDB does not read, becomes U+FFFD.
    """
    whole = f"list_transform([{with_whole_pairs(text)}], lambda whole: {strict_json_as_it_is('whole')})[1]"
    return (
        f"coalesce({strict_json_as_it_is(text)}, CASE WHEN regexp_matches({text}, {literal(_HALF)}) THEN {whole} END)"
    )


def strict_json_as_it_is(text: str) -> str:
    """Return the SQL of a text as JSON, as `strict_json`; half a character makes it none."""
    lenient = f"regexp_matches(regexp_replace({text}, {literal(_STRING)}, '', 'g'), {literal(_LENIENT)})"
    return (
        f"CASE WHEN regexp_matches({text}, {literal(_LENIENT)}) AND CASE WHEN json_valid({text}) THEN {lenient} END "
        f"THEN NULL ELSE TRY_CAST({text} AS JSON) END"
    )


def no_json(text: str) -> str:
    """Return the SQL of why a text is not what `strict_json` lets through."""
    blanks = r"E' \t\r\n'"
    return (
        f"CASE WHEN {text} IS NULL THEN 'there is none' WHEN trim({text}, {blanks}) = '' THEN 'it is empty' "
        f"WHEN json_valid({text}) THEN 'it has a comma before a bracket, or a number such as NaN, which are not JSON' "
        f"WHEN ltrim({text}, {blanks}) LIKE '```%' THEN 'it is fenced by ```, which is not JSON' "
        f"ELSE 'it is not valid JSON, and begins ' || to_json(left({text}, 40))::VARCHAR END"
    )
