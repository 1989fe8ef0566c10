"""The SQL of a request line: how a request is written into the file that is uploaded."""

from __future__ import annotations

from duckdb_mistral.duck.quoting import literal

#: JSON allows these unescaped, but readers that split lines like Python's splitlines would cut a request in two.
LINE_BREAKS = {"\u2028": "\\u2028", "\u2029": "\\u2029", "\u0085": "\\u0085"}


def request_line() -> str:
    """Return the SQL of a row's line, made from its columns custom_id and body; the body is JSON."""
    custom_id = _without_breaks("custom_id", "to_json(custom_id)")
    body = _without_breaks("body", "body")
    return f"""concat('{{"custom_id":', {custom_id}, ',"body":', {body}, '}}', chr(10))"""


def _without_breaks(name: str, json: str) -> str:
    """Return the SQL of the text `json`, made from the column `name`, with its line breaks escaped."""
    # All branches are VARCHAR: if one were JSON, the text would be parsed again.
    text = replaced = f"{json}::VARCHAR"
    for character, escape in LINE_BREAKS.items():
        replaced = f"replace({replaced}, chr({ord(character)}), {literal(escape)})"
    # Searching is far quicker than replacing.
    found = " OR ".join(f"contains({name}, chr({ord(character)}))" for character in LINE_BREAKS)
    return f"CASE WHEN {found} THEN {replaced} ELSE {text} END"
