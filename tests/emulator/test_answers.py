"""The echo of every endpoint: its shape by the OpenAPI text and the SDK's own models, and what requests may ask."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import mistralai.client.models as sdk
import pytest
import yaml
from emulator.calling import Caller, chats, requests_of

from duckdb_mistral.emulator.answers import ECHOES
from duckdb_mistral.emulator.checks import ENDPOINTS
from duckdb_mistral.emulator.examples import example_of

DATA = Path(__file__).parent.parent / "data"
SCHEMA = {
    "type": "object",
    "required": ["name", "authors", "year"],
    "additionalProperties": False,
    "properties": {
        "name": {"type": "string"},
        "authors": {"type": "array", "items": {"type": "string"}},
        "year": {"type": "integer"},
    },
}
BOOK = {"type": "json_schema", "json_schema": {"name": "book", "schema": SCHEMA, "strict": True}}
MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "one two"}]
CHUNKS = [{"role": "user", "content": [{"type": "text", "text": "a "}, {"type": "text", "text": "b"}]}]
URL = "https://example.org/a.pdf"

#: Of every endpoint: the SDK's model of the answer, and request bodies that differ in shape.
CASES: dict[str, tuple[Any, list[dict[str, Any]]]] = {
    "/v1/chat/completions": (
        sdk.ChatCompletionResponse,
        [
            {"messages": MESSAGES},
            {"messages": CHUNKS, "model": "own"},
            {"messages": MESSAGES, "n": 3, "max_tokens": 1},
            {"messages": MESSAGES, "response_format": BOOK},
            {"messages": MESSAGES, "response_format": {"type": "json_object"}},
            {"messages": [{"role": "user", "content": "[[chunks]]"}]},
            {"messages": [{"role": "user", "content": "[[tool_calls]]"}]},
            {"messages": [{"role": "user", "content": "[[empty]]"}]},
            {"messages": [{"role": "assistant", "content": None}]},
        ],
    ),
    "/v1/fim/completions": (
        sdk.FIMCompletionResponse,
        [{"prompt": "def f("}, {"prompt": "a b", "suffix": " c", "max_tokens": 2}, {"prompt": "[[empty]]"}],
    ),
    "/v1/embeddings": (
        sdk.EmbeddingResponse,
        [
            {"input": "a"},
            {"input": ["a", "b"], "output_dimension": 16},
            *(
                {"input": "a", "output_dimension": 16, "output_dtype": kind}
                for kind in ("int8", "uint8", "binary", "ubinary")
            ),
        ],
    ),
    "/v1/moderations": (sdk.ModerationResponse, [{"input": "a"}, {"input": ["a", "[[pii]] [[law]]"]}]),
    "/v1/chat/moderations": (sdk.ModerationResponse, [{"input": MESSAGES}, {"input": [MESSAGES, CHUNKS]}]),
    "/v1/classifications": (sdk.ClassificationResponse, [{"input": "a"}, {"input": ["a", "b"]}]),
    "/v1/chat/classifications": (
        sdk.ClassificationResponse,
        [{"input": {"messages": MESSAGES}}, {"input": [{"messages": MESSAGES}, {"messages": CHUNKS}]}],
    ),
    "/v1/ocr": (
        sdk.OCRResponse,
        [
            {"document": {"document_url": URL}},
            {"document": {"image_url": {"url": URL}}, "pages": "0,2-4", "include_image_base64": True},
            {"document": {"image_url": URL}, "pages": [7], "confidence_scores_granularity": "page"},
            {
                "document": {"file_id": "00000000-0000-4000-8000-000000000000"},
                "document_annotation_format": BOOK,
                "bbox_annotation_format": BOOK,
                "extract_header": True,
                "extract_footer": True,
                "include_blocks": True,
                "confidence_scores_granularity": "word",
            },
        ],
    ),
    "/v1/conversations": (
        sdk.ConversationResponse,
        [
            {"inputs": "one two", "agent_id": "ag"},
            {"inputs": MESSAGES, "completion_args": {"max_tokens": 2}},
            {"inputs": "x", "completion_args": {"response_format": BOOK}},
            {"inputs": "x", "completion_args": {"response_format": {"type": "json_object"}}},
            {"inputs": "[[chunks]]"},
            {"inputs": "[[empty]]"},
        ],
    ),
    "/v1/audio/transcriptions": (
        sdk.TranscriptionResponse,
        [
            {"file_url": URL, "language": "en"},
            {"file_id": "f", "timestamp_granularities": ["segment"], "diarize": True},
            {"file_url": URL, "timestamp_granularities": ["word"]},
        ],
    ),
}


def schema_of(endpoint: str) -> dict[str, Any] | None:
    """Return the JSON schema of an endpoint's answer, or None where the OpenAPI text has none."""
    document = yaml.safe_load((DATA / "mistral-openapi-extract.yaml").read_text(encoding="utf-8"))
    if endpoint not in document["paths"]:
        return None
    # The text requires `data` of a chat answer, which it does not describe and no real answer has.
    document["components"]["schemas"]["ChatCompletionResponse"]["allOf"][1]["required"].remove("data")
    content = document["paths"][endpoint]["post"]["responses"]["200"]["content"]
    reference: dict[str, Any] = content["application/json"]["schema"]
    return reference | {"components": document["components"]}


def test_every_endpoint_has_an_echo() -> None:
    """The endpoints of the OpenAPI text, of the checks, of the echo and of these tests are the same ten."""
    document = yaml.safe_load((DATA / "mistral-openapi-extract.yaml").read_text(encoding="utf-8"))
    expected = set(document["components"]["schemas"]["ApiEndpoint"]["enum"])
    assert expected == set(ENDPOINTS) == set(ECHOES) == set(CASES)


@pytest.mark.parametrize("endpoint", CASES)
def test_shape_by_the_sdk(caller: Caller, endpoint: str) -> None:
    """The SDK reads every answer as the model that the endpoint promises, and it names the job's model."""
    model, bodies = CASES[endpoint]
    answers = caller.bodies(*bodies, endpoint=endpoint, model="the-job's")
    assert len(answers) == len(bodies)
    for body, answer in zip(bodies, answers, strict=True):
        model.model_validate(answer)
        if answer.get("outputs") != []:
            assert (answer.get("model") or answer["outputs"][0]["model"]) == body.get("model", "the-job's")


@pytest.mark.parametrize("endpoint", sorted(CASES.keys() - {"/v1/conversations"}))
def test_shape_by_the_openapi_text(caller: Caller, endpoint: str) -> None:
    """Every answer is valid by the OpenAPI text, which says nothing of conversations."""
    jsonschema_rs = pytest.importorskip("jsonschema_rs", reason="it comes with schemathesis")
    validator = jsonschema_rs.validator_for(schema_of(endpoint))
    for answer in caller.bodies(*CASES[endpoint][1], endpoint=endpoint):
        validator.validate(answer)


@pytest.mark.parametrize("endpoint", CASES)
def test_errors_and_gaps_on_request(caller: Caller, endpoint: str) -> None:
    """Wherever there is a text, it may ask for an error or for no answer at all."""

    def saying(text: str) -> dict[str, Any]:
        body = CASES[endpoint][1][0]
        name = next(name for name in ("messages", "prompt", "input", "inputs", "document", "file_url") if name in body)
        shapes: dict[str, Any] = {
            "messages": [{"role": "user", "content": text}],
            "document": {"document_url": text},
        }
        if endpoint == "/v1/chat/moderations":
            return {"input": [{"role": "user", "content": text}]}
        if endpoint == "/v1/chat/classifications":
            return {"input": {"messages": [{"role": "user", "content": text}]}}
        return {name: shapes.get(name, text)}

    content = requests_of(saying("plain"), saying("[[error 503]]"), saying("[[missing]]"))
    job = caller.ended(caller.create(content, endpoint=endpoint))
    assert (job["status"], job["succeeded_requests"], job["failed_requests"]) == ("SUCCESS", 2, 1)
    assert [line["custom_id"] for line in caller.lines(job["output_file"])] == ["000"]
    (line,) = caller.lines(job["error_file"])
    assert (line["custom_id"], line["response"]["status_code"]) == ("001", 503)
    assert line["response"]["body"]["code"] == "503"


@pytest.mark.parametrize("endpoint", CASES)
def test_body_without_what_it_needs(caller: Caller, endpoint: str) -> None:
    """A request without what its endpoint needs is refused with 422, alone."""
    job = caller.ended(caller.create(requests_of({}, CASES[endpoint][1][0]), endpoint=endpoint))
    (line,) = caller.lines(job["error_file"])
    assert (line["custom_id"], line["response"]["status_code"]) == ("000", 422)
    assert line["response"]["body"]["detail"][0]["loc"][0] == "body"
    assert job["succeeded_requests"] == 1


@pytest.mark.parametrize("sample", ["chat", "structured", "embeddings", "ocr", "transcriptions"])
def test_samples_of_the_real_api(caller: Caller, sample: str) -> None:
    """The public samples of request files are answered; where there is a real result, it has the same members."""
    endpoints = {
        "chat": "/v1/chat/completions",
        "structured": "/v1/chat/completions",
        "embeddings": "/v1/embeddings",
        "ocr": "/v1/ocr",
        "transcriptions": "/v1/audio/transcriptions",
    }
    content = (DATA / "samples" / f"{sample}.input.jsonl").read_bytes()
    job = caller.ended(caller.create(content, endpoint=endpoints[sample]))
    lines = caller.lines(job["output_file"])
    assert [line["custom_id"] for line in lines] == ["0", "1", "2"]
    result = DATA / "samples" / f"{sample}.result.jsonl"
    if result.exists():
        for line, real in zip(lines, map(json.loads, result.read_text(encoding="utf-8").splitlines()), strict=True):
            assert members_of(line) == members_of(real)


def members_of(value: Any) -> Any:
    """Return the names of all members of a JSON value, nested as they are."""
    if isinstance(value, dict):
        return {name: members_of(member) for name, member in value.items()}
    if isinstance(value, list):
        return [members_of(member) for member in value]
    return None


def test_chat(caller: Caller) -> None:
    """A chat echo is the last message's text, cut to max_tokens words, as often as is asked."""
    whole, cut, three = caller.bodies(
        {"messages": MESSAGES}, {"messages": MESSAGES, "max_tokens": 2}, {"messages": MESSAGES, "n": 3}
    )
    assert whole["choices"][0]["message"]["content"] == "echo: one two"
    assert whole["choices"][0]["finish_reason"] == "stop"
    assert whole["usage"] == {"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5}
    assert (cut["choices"][0]["message"]["content"], cut["choices"][0]["finish_reason"]) == ("echo: one", "length")
    assert [choice["index"] for choice in three["choices"]] == [0, 1, 2]


def test_text_of_any_kind(caller: Caller) -> None:
    """Any text comes back unchanged."""
    texts = [
        '"quotes" \\ and \n newlines',
        "\u2028 \u0085 \x00 \x01 \x1f",
        "é 漢字 🙂",
        "'; DROP TABLE x; --",
        "",
        "{}",
    ]
    answers = caller.bodies(*({"messages": [{"role": "user", "content": text}]} for text in texts))
    assert [answer["choices"][0]["message"]["content"] for answer in answers] == [f"echo: {text}" for text in texts]


def test_chat_directives(caller: Caller) -> None:
    """A chat message may ask for chunks, a tool call, an early end, no choices, or JSON that does not end."""
    names = ("chunks", "tool_calls", "length", "empty", "invalid json")
    chunks, calls, length, empty, invalid = caller.bodies(
        *(
            {"messages": [{"role": "user", "content": f"[[{name}]]"}], "response_format": {"type": "json_object"}}
            for name in names
        )
    )
    assert [chunk["type"] for chunk in chunks["choices"][0]["message"]["content"]] == ["thinking", "text"]
    assert calls["choices"][0]["message"]["tool_calls"][0]["function"] == {"name": "echo", "arguments": "{}"}
    assert (calls["choices"][0]["message"]["content"], calls["choices"][0]["finish_reason"]) == (None, "tool_calls")
    assert length["choices"][0]["finish_reason"] == "length"
    assert empty["choices"] == []
    with pytest.raises(json.JSONDecodeError):
        json.loads(invalid["choices"][0]["message"]["content"])


def test_forced_tool(caller: Caller) -> None:
    """A request that must call a tool gets a call of its first one."""
    tool = {"type": "function", "function": {"name": "look_up", "parameters": {}}}
    (answer,) = caller.bodies({"messages": MESSAGES, "tools": [tool], "tool_choice": "any"})
    (call,) = answer["choices"][0]["message"]["tool_calls"]
    assert call["function"]["name"] == "look_up"


def test_structured_output(caller: Caller) -> None:
    """An answer in JSON is an object with the echo, or an example of the schema that is asked for."""
    free, book = caller.bodies(
        {"messages": MESSAGES, "response_format": {"type": "json_object"}},
        {"messages": MESSAGES, "response_format": BOOK},
    )
    assert json.loads(free["choices"][0]["message"]["content"]) == {"echo": "one two"}
    assert json.loads(book["choices"][0]["message"]["content"]) == {"name": "echo", "authors": ["echo"], "year": 1}


def test_embeddings(caller: Caller) -> None:
    """Equal texts have equal vectors, others nearly orthogonal ones, all of length 1 and of 1024 numbers by default."""
    first, second = caller.bodies({"input": ["a", "b"]}, {"input": "a"}, endpoint="/v1/embeddings")
    a, b = (entry["embedding"] for entry in first["data"])
    assert [entry["index"] for entry in first["data"]] == [0, 1]
    assert second["data"][0]["embedding"] == a
    assert len(a) == len(b) == 1024
    assert math.isclose(math.sqrt(sum(x * x for x in a)), 1, rel_tol=1e-5)
    assert abs(sum(x * y for x, y in zip(a, b, strict=True))) < 0.15


def test_embedding_is_the_same_everywhere(caller: Caller) -> None:
    """The vector of a text does not depend on the run or on DuckDB's version."""
    (answer,) = caller.bodies({"input": "a", "output_dimension": 3}, endpoint="/v1/embeddings")
    assert answer["data"][0]["embedding"] == pytest.approx([0.9590865, 0.1072235, -0.2620234], abs=1e-6)


@pytest.mark.parametrize(
    ("kind", "length", "low", "high"),
    [
        ("float", 32, -1, 1),
        ("int8", 32, -127, 127),
        ("uint8", 32, 1, 255),
        ("binary", 4, -128, 127),
        ("ubinary", 4, 0, 255),
    ],
)
def test_embedding_types(caller: Caller, kind: str, length: int, low: int, high: int) -> None:
    """Vectors come in the number type that is asked for; binary ones hold eight numbers in one."""
    (answer,) = caller.bodies({"input": "a", "output_dimension": 32, "output_dtype": kind}, endpoint="/v1/embeddings")
    numbers = answer["data"][0]["embedding"]
    assert len(numbers) == length
    assert all(low <= number <= high for number in numbers)
    assert len(set(numbers)) > 1
    assert kind == "float" or all(isinstance(number, int) for number in numbers)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"input": []}, "input"),
        ({"output_dimension": 0}, "output_dimension"),
        ({"output_dtype": "complex"}, "output_dtype"),
        ({"encoding_format": "base64"}, "encoding_format"),
    ],
)
def test_embeddings_refused(caller: Caller, change: dict[str, Any], field: str) -> None:
    """An embedding request that cannot be met is refused by the name of its field."""
    job = caller.ended(caller.create(requests_of({"input": "a"} | change), endpoint="/v1/embeddings"))
    (line,) = caller.lines(job["error_file"])
    assert line["response"]["body"]["detail"][0]["loc"] == ["body", field]


def test_moderations(caller: Caller) -> None:
    """A category applies where the text names it in double brackets; scores are the same in every run."""
    first, second = caller.bodies({"input": ["a", "[[pii]]"]}, {"input": "a"}, endpoint="/v1/moderations")
    assert [result["categories"]["pii"] for result in first["results"]] == [False, True]
    assert first["results"][1]["category_scores"]["pii"] == 0.99
    assert first["results"][0] == second["results"][0]
    (chat,) = caller.bodies({"input": [{"role": "user", "content": "a"}]}, endpoint="/v1/chat/moderations")
    assert chat["results"] == second["results"]


def test_classifications(caller: Caller) -> None:
    """The scores of a target's labels add up to 1 and belong to the text."""
    first, second = caller.bodies({"input": ["a", "b"]}, {"input": "b"}, endpoint="/v1/classifications")
    scores = [result["echo"]["scores"] for result in first["results"]]
    assert [sum(score.values()) for score in scores] == pytest.approx([1, 1])
    assert scores[0] != scores[1]
    assert second["results"] == first["results"][1:]


def test_ocr(caller: Caller) -> None:
    """The pages that are asked for name the document; annotations are examples of their schemas."""
    one, some, listed, full = caller.bodies(*CASES["/v1/ocr"][1], endpoint="/v1/ocr")
    assert [(page["index"], page["markdown"]) for page in one["pages"]] == [(0, f"echo: {URL}")]
    assert [page["index"] for page in some["pages"]] == [0, 2, 3, 4]
    assert some["pages"][0]["images"][0]["image_base64"].startswith("data:image/gif;base64,")
    assert [page["index"] for page in listed["pages"]] == [7]
    assert listed["pages"][0]["confidence_scores"]["word_confidence_scores"] == []
    book = {"name": "echo", "authors": ["echo"], "year": 1}
    (page,) = full["pages"]
    assert json.loads(full["document_annotation"]) == json.loads(page["images"][0]["image_annotation"]) == book
    assert (page["header"], page["footer"], page["blocks"][0]["type"]) == ("header", "footer", "text")
    for word in page["confidence_scores"]["word_confidence_scores"]:
        assert page["markdown"][word["start_index"] :].startswith(word["text"])
    assert full["usage_info"]["pages_processed"] == 1


def test_transcriptions(caller: Caller) -> None:
    """A transcription names its recording, in segments or words when asked, with speakers when asked."""
    plain, segments, words = caller.bodies(*CASES["/v1/audio/transcriptions"][1], endpoint="/v1/audio/transcriptions")
    assert (plain["text"], plain["language"], plain["segments"]) == (f"echo: {URL}", "en", [])
    assert [(part["text"], part["speaker_id"]) for part in segments["segments"]] == [("echo: f", "speaker_1")]
    assert [(part["text"], part["start"], part["end"]) for part in words["segments"]] == [("echo:", 0, 1), (URL, 1, 2)]


def test_order_of_a_results_file(caller: Caller) -> None:
    """The lines of a results file are not in the order of the requests."""
    job = caller.ended(caller.create(chats(*map(str, range(100)))))
    content = caller.get(f"/v1/files/{job['output_file']}/content").content
    order = [json.loads(line)["custom_id"] for line in content.splitlines()]
    assert order != sorted(order)
    assert len(set(order)) == 100


@pytest.mark.parametrize(
    ("schema", "example"),
    [
        ({"type": "integer", "minimum": 5}, 5),
        ({"type": "number", "maximum": -1}, -1.0),
        ({"type": ["null", "string"]}, None),
        ({"type": "string", "format": "date"}, "2026-01-31"),
        ({"type": "string", "minLength": 6, "maxLength": 6}, "echo.."),
        ({"enum": ["x", "y"]}, "x"),
        ({"const": 3}, 3),
        ({"anyOf": [{"type": "boolean"}]}, True),
        ({"type": "array", "items": {"type": "integer"}, "minItems": 2}, [1, 1]),
        ({"$ref": "#/$defs/A", "$defs": {"A": {"type": "boolean"}}}, True),
        ({"$ref": "#/$defs/lost"}, None),
        ({"properties": {"next": {"$ref": "#"}}}, None),
        (True, None),
    ],
)
def test_examples(schema: Any, example: Any) -> None:
    """The example of a schema is a value that it allows; a schema without end or sense has a null in it."""
    found = example_of(schema)
    while isinstance(found, dict):
        found = found["next"]
    assert found == example
