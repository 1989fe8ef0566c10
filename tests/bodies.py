"""Rows of every endpoint, and the request bodies that they become."""

from __future__ import annotations

from typing import Any

#: Endpoint, source, and the body of its one row.
BODIES: list[tuple[str, str, dict[str, Any]]] = [
    (
        "chat/completions",
        "SELECT 1 AS custom_id, 'hello' AS prompt, 'be kind' AS system, 5 AS max_tokens",
        {
            "messages": [{"role": "system", "content": "be kind"}, {"role": "user", "content": "hello"}],
            "max_tokens": 5,
        },
    ),
    (
        "chat/completions",
        "SELECT 1 AS custom_id, [{'role': 'user', 'content': 'hello'}] AS messages, ['a', 'b'] AS stop",
        {"messages": [{"role": "user", "content": "hello"}], "stop": ["a", "b"]},
    ),
    (
        "chat/completions",
        """SELECT 1 AS custom_id, [{'role': 'user', 'content': [{'type': 'text', 'text': 'hello'}]}] AS messages,
          '[{"type": "function", "function": {"name": "f", "parameters": {}}}]'::JSON AS tools""",
        {
            "messages": [{"role": "user", "content": [{"type": "text", "text": "hello"}]}],
            "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}],
        },
    ),
    (
        "fim/completions",
        "SELECT 1 AS custom_id, 'def f(' AS prompt, 'return 1' AS suffix, 3 AS min_tokens",
        {"prompt": "def f(", "suffix": "return 1", "min_tokens": 3},
    ),
    ("embeddings", "SELECT 1 AS custom_id, 'some text' AS input", {"input": "some text"}),
    ("embeddings", "SELECT 1 AS custom_id, ['a', 'b'] AS input", {"input": ["a", "b"]}),
    (
        "embeddings",
        "SELECT 1 AS custom_id, 42 AS input, 256 AS output_dimension",
        {"input": "42", "output_dimension": 256},
    ),
    ("moderations", "SELECT 1 AS custom_id, ['a', 'b'] AS input", {"input": ["a", "b"]}),
    (
        "chat/moderations",
        "SELECT 1 AS custom_id, 'hello' AS prompt",
        {"input": [{"role": "user", "content": "hello"}]},
    ),
    (
        "chat/moderations",
        "SELECT 1 AS custom_id, [{'role': 'user', 'content': 'hello'}] AS messages, 'be kind' AS system",
        {"input": [{"role": "system", "content": "be kind"}, {"role": "user", "content": "hello"}]},
    ),
    (
        "chat/moderations",
        'SELECT 1 AS custom_id, \'[[{"role": "user", "content": "hello"}]]\' AS input',
        {"input": [[{"role": "user", "content": "hello"}]]},
    ),
    ("classifications", "SELECT 1 AS custom_id, 'some text' AS input", {"input": "some text"}),
    (
        "chat/classifications",
        "SELECT 1 AS custom_id, 'hello' AS prompt",
        {"input": {"messages": [{"role": "user", "content": "hello"}]}},
    ),
    (
        "chat/classifications",
        "SELECT 1 AS custom_id, {'messages': [{'role': 'user', 'content': 'hello'}]} AS input",
        {"input": {"messages": [{"role": "user", "content": "hello"}]}},
    ),
    (
        "ocr",
        "SELECT 1 AS custom_id, 'https://example.org/a.pdf' AS document, [0, 2] AS pages",
        {"document": {"type": "document_url", "document_url": "https://example.org/a.pdf"}, "pages": [0, 2]},
    ),
    (
        "ocr",
        "SELECT 1 AS custom_id, 'https://example.org/a.PNG?size=2' AS document",
        {"document": {"type": "image_url", "image_url": "https://example.org/a.PNG?size=2"}},
    ),
    (
        "ocr",
        "SELECT 1 AS custom_id, 'data:image/jpeg;base64,AAAA' AS document",
        {"document": {"type": "image_url", "image_url": "data:image/jpeg;base64,AAAA"}},
    ),
    (
        "ocr",
        "SELECT 1 AS custom_id, {'file_id': 'f3a1f0b4-7c1b-4e7e-9c22-0a8a4c1d7c11'} AS document",
        {"document": {"file_id": "f3a1f0b4-7c1b-4e7e-9c22-0a8a4c1d7c11"}},
    ),
    (
        "ocr",
        'SELECT 1 AS custom_id, \'{"document_url": "https://example.org/a"}\' AS document',
        {"document": {"document_url": "https://example.org/a"}},
    ),
    (
        "audio/transcriptions",
        "SELECT 1 AS custom_id, 'https://example.org/a.mp3' AS file_url, ['segment'] AS timestamp_granularities",
        {"file_url": "https://example.org/a.mp3", "timestamp_granularities": ["segment"]},
    ),
    (
        "audio/transcriptions",
        "SELECT 1 AS custom_id, 'f3a1f0b4' AS file_id, 'en' AS language",
        {"file_id": "f3a1f0b4", "language": "en"},
    ),
    (
        "conversations",
        "SELECT 1 AS custom_id, 'hello' AS prompt, 'be kind' AS system, {'temperature': 0.5} AS completion_args",
        {"inputs": "hello", "instructions": "be kind", "completion_args": {"temperature": 0.5}},
    ),
    (
        "conversations",
        "SELECT 1 AS custom_id, [{'role': 'user', 'content': 'hello'}] AS inputs, 'be brief' AS instructions",
        {"inputs": [{"role": "user", "content": "hello"}], "instructions": "be brief"},
    ),
]
