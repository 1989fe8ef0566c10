"""The API's own text, for tests that hold requests and answers against it."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator

DATA = Path(__file__).resolve().parent / "data"
SAMPLES = DATA / "samples"


@cache
def document() -> dict[str, Any]:
    """Return the OpenAPI extract."""
    text: dict[str, Any] = yaml.safe_load((DATA / "mistral-openapi-extract.yaml").read_text(encoding="utf-8"))
    return text


def request_problems(endpoint: str, body: dict[str, Any], model: str = "a-model") -> list[str]:
    """Return what the API's text has against a request body; the job names the model where the body does not."""
    content = document()["paths"][endpoint]["post"]["requestBody"]["content"]
    return _problems(next(iter(content.values()))["schema"], {"model": model} | body)


def response_problems(endpoint: str, body: dict[str, Any]) -> list[str]:
    """Return what the API's text has against a response body.

    The text requires `data` of chat answers, which its own examples and the real lines do not have.
    """
    problems = _problems(_ok(endpoint)["schema"], body)
    return [problem for problem in problems if "choices" not in body or problem != "'data' is a required property"]


def response_example(endpoint: str) -> dict[str, Any]:
    """Return the response that the API's text shows."""
    example: dict[str, Any] = _ok(endpoint)["examples"]["userExample"]["value"]
    return example


def _ok(endpoint: str) -> dict[str, Any]:
    content: dict[str, Any] = document()["paths"][endpoint]["post"]["responses"]["200"]["content"]["application/json"]
    return content


def _problems(schema: dict[str, Any], body: dict[str, Any]) -> list[str]:
    validator = Draft202012Validator(schema | {"components": document()["components"]})
    return [error.message for error in validator.iter_errors(body)]
